"""Objects of a finished run as their fields tell them, so that its other files are made again."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from dsd_jax.engine.generate import about
from dsd_jax.engine.lost import GONE
from dsd_jax.engine.objects import Objects
from dsd_jax.engine.plan import Plan
from dsd_jax.engine.saved import stacked
from dsd_jax.engine.seeds import unpadded
from dsd_jax.engine.task import Task
from dsd_jax.export import manifest
from dsd_jax.export.run_folder import read_metrics, seed_folder
from dsd_jax.export.scenes import SavedScene, load_scene, optimised_of
from dsd_jax.fields.given import GivenShape


def objects_of(run: Path, task: Task, plan: Plan) -> Objects | None:
    """The objects that a plan's seeds became; None where not every field is whole and finished."""
    scene, steps = task.recipe.scene, task.recipe.total_steps
    try:
        diverged = _diverged(run)
        left = [seed for seed in plan.seeds if seed not in diverged]
        latest = {seed: optimised_of(seed_folder(run, seed)) for seed in left}
        if any(own.pop("steps", 0) != steps for own in latest.values()):
            return None
        found = {seed: load_scene(seed_folder(run, seed), scene.field) for seed in left}
    except (OSError, ValueError, TypeError):
        return None
    if any(one.scene != scene or one.occupied is None for one in found.values()):
        return None
    if task.shape is not None:
        found = {seed: _of_shape(one, task.shape) for seed, one in found.items()}
    found |= dict.fromkeys(diverged, _nothing(task))
    chunks = [
        (chunk[: unpadded(chunk)], stacked(chunk, [found[seed] for seed in chunk], steps))
        for chunk in plan.chunks
    ]
    return Objects(about(task), plan, chunks, latest, diverged_after=diverged)


def _diverged(run: Path) -> dict[int, int]:
    """After how many steps each seed that has no files was found out."""
    try:
        return manifest.diverged(run)
    except (OSError, ValueError):
        seeds = read_metrics(run)["seeds"] if (run / "metrics.json").is_file() else {}
        return {
            int(seed): int(own.get("steps", 0))
            for seed, own in seeds.items()
            if own.get("lost", GONE) != GONE
        }


def _of_shape(saved: SavedScene, shape: GivenShape) -> SavedScene:
    """A scene that holds a shape itself; its file tells it less exactly."""
    field: Any = saved.scene.field
    held = field.holding(saved.params["field"], shape.distance)
    return saved._replace(params={**saved.params, "field": held}, shape=shape)


def _nothing(task: Task) -> SavedScene:
    """In the place of a scene that is not shown."""
    scene, cells = task.recipe.scene, task.recipe.render.occupancy_resolution
    shapes = jax.eval_shape(scene.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return SavedScene(scene, params, occupied=np.zeros((cells,) * 3, bool))
