"""What a run hands over: pictures, turntables and fields of each seed, and their scores.

Letters: n seeds, v views, h w pixels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from dsd_jax.export.pictures import save_png
from dsd_jax.export.run_folder import seed_folder, view_name
from dsd_jax.export.scenes import SavedScene, save_scene
from dsd_jax.export.video import save_video, turntable_azimuths_deg
from dsd_jax.metrics import bank, diversity, efficientnet, judge
from dsd_jax.optimization.presets import Settings
from dsd_jax.optimization.preview import levels_in_use, make_camerawork, shoot
from dsd_jax.optimization.state import State
from dsd_jax.rendering.scene import Scene

VIEW_SIZE = 256


def write_seeds(
    run: Path,
    seeds: list[int],
    states: State,
    scene: Scene,
    settings: Settings,
    mesh: Mesh,
    on_view: Callable[[], None] = lambda: None,
) -> UInt8[np.ndarray, "n 8 h w 3"]:
    """Write everything that a seed's folder holds, for n seeds, and return their 8 views.

    Args:
        states: of these seeds, and perhaps of fillers behind them.
        mesh: devices that share the work.
        on_view: called after each of the `views_to_write` views of all seeds.
    """
    elevation = judge.ELEVATION_DEG
    camerawork = make_camerawork(scene, VIEW_SIZE, settings.final_samples, mesh)
    views = shoot(camerawork, states, judge.AZIMUTHS_DEG, elevation, settings, on_view)
    camerawork = make_camerawork(scene, settings.turntable_resolution, settings.final_samples, mesh)
    azimuths = turntable_azimuths_deg(settings.turntable_frames)
    frames = shoot(camerawork, states, azimuths, elevation, settings, on_view)
    levels, params = levels_in_use(states, settings), jax.device_get(states.params)
    for i, seed in enumerate(seeds):
        folder = seed_folder(run, seed)
        for azimuth, picture in zip(judge.AZIMUTHS_DEG, views[i], strict=True):
            save_png(folder / "views" / view_name(azimuth), picture)
        fps = max(1, round(settings.turntable_frames / settings.turntable_seconds))
        save_video(folder / "turntable.mp4", frames[i], fps)
        own = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        save_scene(folder, SavedScene(scene, own, levels))
    return views[: len(seeds)]


def views_to_write(settings: Settings) -> int:
    """How many times `write_seeds` calls `on_view`."""
    return len(judge.AZIMUTHS_DEG) + settings.turntable_frames


def score(prompt: str, views: UInt8[np.ndarray, "n 8 h w 3"]) -> dict[str, Any]:
    """Diversity between seeds, and fidelity to the prompt as far as the judge knows it.

    Returns:
        diversity: mean cosine distance over pairs of seeds.
        diversity_per_seed: of each seed to the others.
        fidelity: see `judge.prompt_fidelity`; only {"reason": ...} where there is no judge.
    """
    features = efficientnet.features_in_batches(efficientnet.load_efficientnet(), views)
    try:
        fidelity = judge.prompt_fidelity(bank.load_bank(), prompt, features)
    except FileNotFoundError as error:
        fidelity = {"accepted": None, "per_seed": None, "neighbours": None, "reason": str(error)}
    return {
        "diversity": diversity.diversity(features),
        "diversity_per_seed": diversity.per_object_diversity(features).tolist(),
        "fidelity": fidelity,
    }
