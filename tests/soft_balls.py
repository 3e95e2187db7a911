"""A run of soft balls, as fields are at first, for the programs that export."""

from pathlib import Path
from typing import Any

import jax

from dsd_jax.export.run_folder import seed_folder
from dsd_jax.export.scenes import SavedScene, save_scene
from dsd_jax.fields.radiance import HashGridField, Stage
from dsd_jax.files import write_json
from dsd_jax.rendering.scene import Scene


def make_run(folder: Path, **known: Any) -> Path:
    """Seeds 0 and 3 are balls, seed 1 is empty; `known` is what else config.json says."""
    camera = {"distance": 2.7, "fov_deg": 40.0}
    write_json(folder / "config.json", {"recipe": {"camera": camera}, **known})
    for seed, floor in {0: 1.0, 1: 1e9, 3: 1.0}.items():
        field = HashGridField(
            levels=2, log2_entries=8, base_resolution=16, growth=1.447, width=8, blob_scale=6.0,
            colour_std=0.0, density_floor=floor, start_levels=1,
        )  # fmt: skip
        scene = Scene(field)
        seed_folder(folder, seed).mkdir()
        params = scene.init(jax.random.key(0))
        save_scene(seed_folder(folder, seed), SavedScene(scene, params, Stage(1.5, 1.0)))
    return folder
