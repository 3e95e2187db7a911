"""What a run hands over: pictures, turntables and fields of each seed, and their scores.

Letters: n seeds, v views, h w pixels.
"""

import resource
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from dsd_jax.engine import hosts
from dsd_jax.engine.plan import Plan
from dsd_jax.engine.seed_views import Camerawork, levels_in_use, make_camerawork, shoot
from dsd_jax.export.pictures import save_png
from dsd_jax.export.run_folder import seed_folder, view_name
from dsd_jax.export.scenes import SavedScene, save_scene
from dsd_jax.export.video import save_video, turntable_azimuths_deg
from dsd_jax.metrics import bank, diversity, efficientnet, judge
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.state import State
from dsd_jax.rendering.cameras import Camera, ring
from dsd_jax.rendering.scene import Scene

VIEW_SIZE = 256


def write_fields(
    run: Path, seeds: list[int], rows: State, scene: Scene, settings: Settings
) -> None:
    """Write the fields of those of n seeds whose states this process has: `rows`, NumPy."""
    levels = levels_in_use(rows, settings)
    own = seeds[hosts.own_slice(rows.step.shape[0] * jax.process_count())]
    for i, seed in enumerate(own):
        params = jax.tree.map(lambda leaf, i=i: leaf[i], rows.params)
        folder = seed_folder(run, seed)
        folder.mkdir(exist_ok=True)
        save_scene(folder, SavedScene(scene, params, levels))


def write_views(
    run: Path,
    seeds: list[int],
    states: State,
    scene: Scene,
    settings: Settings,
    mesh: Mesh,
    on_view: Callable[[], None] = lambda: None,
) -> UInt8[np.ndarray, "n 8 h w 3"]:
    """Write the pictures and the turntable of each of n seeds, and return their 8 views.

    Each process writes its own seeds and returns the views of all.

    Args:
        states: of these seeds, and perhaps of fillers behind them.
        mesh: devices that share the work.
        on_view: called after each of the `views_to_write` views of all seeds.
    """
    elevation = judge.ELEVATION_DEG
    of_views, of_turntable = cameraworks(scene, settings, mesh)
    views = shoot(of_views, states, judge.AZIMUTHS_DEG, elevation, settings, on_view)
    azimuths = turntable_azimuths_deg(settings.turntable_frames)
    frames = shoot(of_turntable, states, azimuths, elevation, settings, on_view)
    fps = max(1, round(settings.turntable_frames / settings.turntable_seconds))

    def write(i: int, seed: int) -> None:
        folder = seed_folder(run, seed)
        for azimuth, picture in zip(judge.AZIMUTHS_DEG, views[i], strict=True):
            save_png(folder / "views" / view_name(azimuth), picture)
        save_video(folder / "turntable.mp4", frames[i], fps)

    with ThreadPoolExecutor() as pool:
        own_seeds = seeds[hosts.own_slice(states.step.shape[0])]
        list(pool.map(write, range(len(own_seeds)), own_seeds))
    return hosts.all_rows(views)[: len(seeds)]


def cameraworks(scene: Scene, settings: Settings, mesh: Mesh) -> tuple[Camerawork, Camerawork]:
    """The renderers of the 8 views and of the turntable."""
    of_views, of_turntable = (
        make_camerawork(scene, size, settings.final_samples, mesh)
        for size in (VIEW_SIZE, settings.turntable_resolution)
    )
    return of_views, of_turntable


def mesh_cameras(settings: Settings) -> Camera:
    """Where meshes are compared with their fields from: the run's eight views."""
    return ring(judge.AZIMUTHS_DEG, judge.ELEVATION_DEG, settings.distance, settings.fov_deg)


def views_to_write(settings: Settings) -> int:
    """How many times `write_views` calls `on_view`."""
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


class Scores(NamedTuple):
    """What metrics.json says of n seeds' views.

    Attributes:
        run: of all seeds together.
        seeds: of each seed.
    """

    run: dict[str, Any]
    seeds: list[dict[str, Any]]


def prompt_scores(prompt: str, views: UInt8[np.ndarray, "n 8 h w 3"]) -> Scores:
    """`score`, sorted."""
    scores = score(prompt, views)
    fidelity = scores["fidelity"]
    run = {
        "diversity": scores["diversity"],
        "fidelity": {k: fidelity.get(k) for k in ("category", "accepted", "reason")},
    }
    seeds = [
        {
            "diversity": own,
            "accepted": fidelity["per_seed"] and fidelity["per_seed"][i],
            "neighbours": fidelity["neighbours"] and fidelity["neighbours"][i],
        }
        for i, own in enumerate(scores["diversity_per_seed"])
    ]
    return Scores(run, seeds)


def summary(
    steps: dict[int, int], latest: dict[int, dict[str, float]], scores: Scores
) -> dict[str, Any]:
    """What metrics.json says about the result, overall and per seed.

    Args:
        steps: steps done, of the n seeds in the order of their scores.
        latest: metrics of each seed's last steps.
    """
    return {
        **scores.run,
        "seeds": {
            str(seed): {"steps": done, **own, **latest.get(seed, {})}
            for (seed, done), own in zip(steps.items(), scores.seeds, strict=True)
        },
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "peak_memory_gb": peak_memory_gb(),
    }


def planned_memory_gb(plan: Plan) -> dict[str, float]:
    """What `plan` expects one device to hold, in 1e9 bytes: the parts, and in all."""
    parts = {**plan.needs._asdict(), "in_all": plan.bytes_needed}
    return {name: round(size / 1e9, 6) for name, size in parts.items()}


def peak_memory_gb() -> dict[str, float]:
    """Most 1e9 bytes held so far, by the process and by the device that held most."""
    peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use", 0) for d in jax.local_devices()]
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"host": round(resident / 1e9, 2), "device": round(max(peaks) / 1e9, 2)}
