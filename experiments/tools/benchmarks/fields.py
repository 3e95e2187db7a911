"""Work of the hash grid and of the renderer. Letters: n seeds, p points."""

import math
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.engine.generate import initial_states
from dsd_jax.engine.task import Task
from dsd_jax.fields import hash_grid
from dsd_jax.fields.radiance import HashGridField
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.rendering.cameras import orbit, rays
from dsd_jax.rendering.chunks import step_chunk
from dsd_jax.rendering.sampling import place_uniformly, ray_ball, strata

from .work import Ready, Work, normal, per_unit, plural, program

# Rows over which gradients of coarse levels are spread in the rows that say so.
SPREAD = 2**17


def grids(recipe: Recipe, p: int, seeds) -> Iterator[Work]:
    """All levels forward and backward for each number of seeds; the first and the last alone."""
    levels = range(_field(recipe).levels)
    parts = {"": levels, ", coarsest level": levels[:1], ", finest level": levels[-1:]}
    for n in seeds:
        size = f"{p:,} points, {plural(n)}"
        yield Work("hash grid forward", size, partial(grid, recipe, p, n, levels))
        for name, part in parts.items() if n == seeds[0] else [("", levels)]:
            for how, spread in ("", 0), (", spread", SPREAD):
                backward = partial(grid, recipe, p, n, part, spread)
                yield Work(f"hash grid backward{name}{how}", size, backward)


def grid(recipe: Recipe, p: int, n: int, levels, spread: int | None = None) -> Ready:
    """Features of p points of n seeds in all; with `spread` their gradient by the tables."""
    field = _field(recipe)
    resolutions = hash_grid.level_resolutions(field.levels, field.base_resolution, field.growth)
    resolutions = [resolutions[level] for level in levels]
    entries = [hash_grid.level_entries(r, field.log2_entries) for r in resolutions]
    tables = [normal(i, (n, e, field.features)) for i, e in enumerate(entries)]
    points = points_on_rays(recipe, p // n)
    points = jnp.broadcast_to(points, (n, *points.shape)) + 0.0

    def forward(tables, points):
        return hash_grid.encode(tables, points, resolutions, spread=spread)

    def backward(tables, points, cotangent):
        return jax.vjp(lambda t: forward(t, points), tables)[1](cotangent)

    if spread is None:
        return program(jax.vmap(forward), tables, points)
    cotangent = normal(9, (*points.shape[:2], len(resolutions) * field.features))
    return program(jax.vmap(backward), tables, points, cotangent)


def points_on_rays(recipe: Recipe, p: int) -> jax.Array:
    """About p points [p, 3], ray by ray, of a view from the front."""
    side = max(1, round(math.sqrt(p / recipe.render.samples)))
    origins, directions = (x.reshape(-1, 3) for x in rays(_front(recipe), side, side))
    near, far = ray_ball(origins, directions)
    u = strata(jax.random.key(0), (len(origins), recipe.render.samples))
    t, _ = place_uniformly(near, far, u)
    return (origins[:, None] + t[..., None] * directions[:, None]).reshape(-1, 3)


def render(task: Task, n: int, pulled: bool) -> Ready:
    """A step's views of n seeds; `pulled`: and the gradient of the fields. Units are seeds."""
    recipe, numbers, views_a_step = task.recipe, task.recipe.render, task.recipe.camera.views
    chunk = step_chunk(numbers.resolution, numbers.samples)
    states = initial_states(task, list(range(n)))
    cameras = jax.tree.map(lambda leaf: jnp.stack([leaf] * views_a_step), _front(recipe))

    def views(params, occupancy):
        def view(camera, key):
            return recipe.scene.render(
                params, camera, key, height=numbers.resolution, width=numbers.resolution,
                samples_per_ray=numbers.samples, chunk=chunk, occupancy=occupancy,
            ).rgb  # fmt: skip

        return jax.vmap(view)(cameras, jax.random.split(jax.random.key(0), views_a_step))

    def both(params, occupancy):
        rgb, pull_back = jax.vjp(lambda p: views(p, occupancy), params)
        return pull_back(jnp.cos(rgb))

    function = jax.vmap(both if pulled else views)
    return per_unit(program(function, states.params, states.occupancy), n)


def _front(recipe: Recipe):
    return orbit(0.3, 0.2, recipe.camera.distance, np.deg2rad(recipe.camera.fov_deg))


def _field(recipe: Recipe) -> HashGridField:
    """The field of a preset."""
    assert isinstance(recipe.field, HashGridField)
    return recipe.field
