"""Objects of a finished run, read from its folder.

Letters: n seeds.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.distillation import METHODS
from dsd_jax.engine.device_mesh import seed_mesh
from dsd_jax.engine.lost import GONE
from dsd_jax.engine.objects import About, Objects
from dsd_jax.export.field_grid import density_grid, field_of, occupancy_of
from dsd_jax.export.run_folder import read_config, read_metrics, seed_folder
from dsd_jax.export.scenes import KINDS, SavedScene, field_like, load_scene
from dsd_jax.fields.given import GivenField
from dsd_jax.files import Said, reading
from dsd_jax.metrics.scores import Scores
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.state import State
from dsd_jax.rendering.occupancy import OccupancyGrid


def load_objects_of(folder: str | Path, recipe: Recipe | None = None) -> Objects:
    """What `Objects.save`, or the command line, wrote into a folder.

    Args:
        recipe: that they were made by, where its method or its field is your own.

    Raises:
        FileNotFoundError: the folder is not that of a finished run.
        ValueError: a file is damaged, or of an older version; says which.
    """
    folder = Path(folder)
    config, metrics = read_config(folder), read_metrics(folder)
    with reading(folder / "config.json"):
        recipe = recipe_of(config["recipe"]) if recipe is None else recipe
        scene = recipe.scene
        told, pictured = config.get("prompt", config.get("image", "")), "image" in config
        about = About(recipe, told, None, config["prior"], config["precision"], pictured)
    with reading(folder / "metrics.json"):
        seeds = sorted(int(np.uint32(int(seed))) for seed in metrics["seeds"])
        latest = {seed: dict(metrics["seeds"][str(seed)]) for seed in seeds}
        steps = {seed: int(np.int32(latest[seed]["steps"])) for seed in seeds}
        lost = {seed: str(own["lost"]) for seed, own in latest.items() if own.get("lost")}
    seeds = [seed for seed in seeds if lost.get(seed, GONE) == GONE]  # the others have no field
    together: dict[int, list[int]] = {}
    for seed in seeds:
        together.setdefault(steps[seed], []).append(seed)
    scenes = {seed: load_scene(seed_folder(folder, seed), scene.field) for seed in seeds}
    if seeds and isinstance(recipe.field, GivenField):
        about = about._replace(shape=scenes[seeds[0]].shape)
    chunks = [
        (own, stacked(own, [scenes[seed] for seed in own], at)) for at, own in together.items()
    ]
    stopped, devices = int(bool(metrics.get("interrupted"))), jax.local_devices()[:1]
    objects = Objects(about, seed_mesh(max(len(seeds), 1), devices), chunks, latest, stopped)
    objects.lost |= lost
    run = {name: value for name, value in metrics.items() if name != "seeds"}
    objects.keep_scores(Scores(run, [latest[seed] for seed in seeds]))
    return objects


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    """The recipe that config.json tells of.

    Raises ValueError where its method or field is none of this package; KeyError or TypeError for
    what tells of no recipe.
    """
    parts: dict[str, Any] = {"steps": int(config["steps"])}
    method, field = dict(config["method"]), dict(config["field"])
    parts["method"] = _known(METHODS, "method", method.pop("name"))(**method)
    kind = field.pop("kind")
    parts["field"] = _known(KINDS, "field", kind) and field_like(kind, field)
    for own in dataclasses.fields(Recipe):
        if own.name not in parts:
            parts[own.name] = type(getattr(_USUAL, own.name))(**config[own.name])
    return Recipe(**parts)


_USUAL = Recipe()


def _known(kinds: Mapping[str, Any], what: str, name: str) -> Any:
    if name not in kinds:
        raise Said(f"config.json: its {what} {name} is not of dsd_jax; give the recipe: recipe=...")
    return kinds[name]


def stacked(seeds: Sequence[int], scenes: Sequence[SavedScene], steps: int) -> State:
    """The states [n, ...] after so many steps, as far as results need them."""
    rows = []
    for seed, saved in zip(seeds, scenes, strict=True):
        if saved.occupied is None:
            occupancy = occupancy_of(density_grid(field_of(saved)))
        else:
            occupancy = OccupancyGrid(jnp.zeros(saved.occupied.shape), jnp.asarray(saved.occupied))
        own, done = jnp.asarray(seed, jnp.uint32), jnp.asarray(steps, jnp.int32)
        rows.append(State(own, done, jnp.zeros(()), saved.params, (), occupancy))
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *rows)
