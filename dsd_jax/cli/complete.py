"""Whether a run is complete: all that it promises is there and whole."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax

from dsd_jax.engine import remade, results
from dsd_jax.engine.objects import Objects
from dsd_jax.engine.plan import Plan
from dsd_jax.engine.progress import Bar
from dsd_jax.engine.task import Task
from dsd_jax.export import manifest
from dsd_jax.export.gallery import PAGES, write_gallery
from dsd_jax.export.run_folder import read_metrics, seed_folder
from dsd_jax.export.scenes import FILES
from dsd_jax.files import sweep


def is_complete(run: Path, seeds: list[int], meshes: bool) -> bool:
    """Whether this run's folder holds all results, whole, of a run that was not interrupted.

    Where of those only the page is not, it is written anew.

    Args:
        meshes: whether they are asked for.
    """
    try:
        listed, broken = _listed(run)
        if broken and all(Path(name).name in PAGES for name in broken):
            write_gallery(run)
            listed, broken = _listed(run)
        return broken == [] and not (meshes and _lacks_meshes(run, listed, seeds))
    except (OSError, ValueError):
        return False


def make_again(
    run: Path, config: Mapping[str, Any], task: Task, plan: Plan, meshes: bool
) -> Objects | None:
    """Make what is missing or damaged in a folder again of the fields, which is a run of no step.

    None where not all of these are whole, and finished; and for several processes. The folder has
    to be held.

    Raises OSError where it cannot be written.
    """
    listed, broken = _listed(run)
    if jax.process_count() > 1 or any(Path(name).name in FILES for name in broken or ()):
        return None
    objects = remade.objects_of(run, task, plan)
    if objects is None:
        return None
    sweep(run)
    meshed = [seed for seed in plan.seeds if _mesh(seed) in listed]
    kept = results.Kept() if broken is None else results.kept_of(listed, broken, plan.seeds)
    if meshes and not meshed:
        kept = kept._replace(metrics=False)
    for name in broken or ():  # what is not made again is no longer promised
        (run / name).unlink(missing_ok=True)
    there = [seed for seed in plan.seeds if (run / _mesh(seed)).is_file()]
    with Bar(plan, task.recipe) as bar:
        bar.say(f"{run}: what is missing or damaged is made again of the fields")
        results.save(objects, run, meshed or meshes or there, config, bar, kept=kept)
    return objects


def _mesh(seed: int) -> str:
    return f"{seed_folder('', seed)}/mesh.glb"


def _lacks_meshes(run: Path, listed: Collection[str], seeds: list[int]) -> bool:
    """Whether no seed has one, of some that came to something."""
    return not any(_mesh(seed) in listed for seed in seeds) and len(lost_seeds(run)) < len(seeds)


def _listed(run: Path) -> tuple[dict[str, Any], list[str] | None]:
    """The files of a run, and those that are not whole; None where nothing can be kept of it."""
    try:
        listed, broken = manifest.listed(run), manifest.faults(run)
        finished = "metrics.json" in broken or read_metrics(run).get("interrupted") is False
        return listed, broken if finished else None
    except (OSError, ValueError):
        return {}, None


def lost_seeds(run: Path) -> list[int]:
    """The seeds of a complete run that diverged, or of which nothing is left."""
    return list(read_metrics(run).get("lost") or [])
