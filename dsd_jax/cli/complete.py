"""Whether a run is complete: all that it promises is there and whole."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

import jax

from dsd_jax.cli import lock
from dsd_jax.engine import results
from dsd_jax.engine.mesh_scores import draw_clay
from dsd_jax.export import manifest
from dsd_jax.export.gallery import PAGES, write_gallery
from dsd_jax.export.run_folder import CLAY_SHEET, read_metrics, seed_folder
from dsd_jax.files import write_json
from dsd_jax.recipe.recipe import Recipe

_CONFIG, _MESH = "config.json", ("mesh.glb", "mesh.json")


def is_complete(run: Path, config: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether this run's folder holds all results, whole, of a run that was not interrupted.

    Where of those only the configuration, meshes, their pictures or the page are not, they are
    written anew.
    """
    try:
        metrics, broken = read_metrics(run), manifest.faults(run)
        if broken:
            _mend(run, broken, config, recipe)
            broken = manifest.faults(run)
        return metrics.get("interrupted") is False and not broken
    except (OSError, ValueError):
        return False


def _mend(run: Path, broken: list[str], config: Mapping[str, Any], recipe: Recipe) -> None:
    """Write what the other files tell, where that is all that is broken.

    Several processes write the page alone.
    """
    rest = [name for name in broken if Path(name).name not in PAGES]
    meshes = [name for name in rest if _of_mesh(name)]
    if {*rest} - {*meshes} - {_CONFIG} or (rest and jax.process_count() > 1):
        return
    with lock.held(run) if rest else nullcontext():
        if _CONFIG in rest:
            write_json(run / _CONFIG, config)
        if meshes:
            _remake_meshes(run, config["seeds"], recipe)
        write_gallery(run)


def _of_mesh(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name == CLAY_SHEET or parts[-1] in _MESH or "clay" in parts


def _remake_meshes(run: Path, seeds: list[int], recipe: Recipe) -> None:
    """The meshes and their pictures, of the fields."""
    listed, cameras = manifest.listed(run), results.mesh_cameras(recipe)
    meshed = [s for s in seeds if f"{seed_folder(run, s).name}/mesh.glb" in listed]
    print(f"{run}: the meshes are made again")
    with results.exporting(run, meshed, cameras, field=recipe.scene.field) as finish:
        finish(lambda line: None, print)
    draw_clay(run, meshed, cameras)


def lost_seeds(run: Path) -> list[int]:
    """The seeds of a complete run that diverged, or of which nothing is left."""
    return list(read_metrics(run).get("lost") or [])
