"""Work of the hash grid and of the renderer. Letters: n seeds, p points."""

import math
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.engine.plan import Task, initial_states
from dsd_jax.fields import hash_grid
from dsd_jax.recipe.presets import Settings
from dsd_jax.rendering.cameras import orbit, rays
from dsd_jax.rendering.sampling import place_uniformly, ray_ball, strata
from dsd_jax.rendering.volume import step_chunk

from .work import Ready, Work, normal, per_unit, plural, program

# Rows over which gradients of coarse levels are spread in the rows that say so.
SPREAD = 2**17


def grids(settings: Settings, p: int, seeds) -> Iterator[Work]:
    """All levels forward and backward for each number of seeds; the first and the last alone."""
    levels = range(settings.levels)
    parts = {"": levels, ", coarsest level": levels[:1], ", finest level": levels[-1:]}
    for n in seeds:
        size = f"{p:,} points, {plural(n)}"
        yield Work("hash grid forward", size, partial(grid, settings, p, n, levels))
        for name, part in parts.items() if n == seeds[0] else [("", levels)]:
            for how, spread in ("", 0), (", spread", SPREAD):
                backward = partial(grid, settings, p, n, part, spread)
                yield Work(f"hash grid backward{name}{how}", size, backward)


def grid(settings: Settings, p: int, n: int, levels, spread: int | None = None) -> Ready:
    """Features of p points of n seeds in all; with `spread` their gradient by the tables."""
    resolutions = hash_grid.level_resolutions(
        settings.levels, settings.base_resolution, settings.growth
    )
    resolutions = [resolutions[level] for level in levels]
    entries = [hash_grid.level_entries(r, settings.log2_entries) for r in resolutions]
    tables = [normal(i, (n, e, settings.features)) for i, e in enumerate(entries)]
    points = points_on_rays(settings, p // n)
    points = jnp.broadcast_to(points, (n, *points.shape)) + 0.0

    def forward(tables, points):
        return hash_grid.encode(tables, points, resolutions, spread=spread)

    def backward(tables, points, cotangent):
        return jax.vjp(lambda t: forward(t, points), tables)[1](cotangent)

    if spread is None:
        return program(jax.vmap(forward), tables, points)
    cotangent = normal(9, (*points.shape[:2], len(resolutions) * settings.features))
    return program(jax.vmap(backward), tables, points, cotangent)


def points_on_rays(settings: Settings, p: int) -> jax.Array:
    """About p points [p, 3], ray by ray, of a view from the front."""
    side = max(1, round(math.sqrt(p / settings.samples)))
    origins, directions = (x.reshape(-1, 3) for x in rays(_front(settings), side, side))
    near, far = ray_ball(origins, directions)
    u = strata(jax.random.key(0), (len(origins), settings.samples))
    t, _ = place_uniformly(near, far, u)
    return (origins[:, None] + t[..., None] * directions[:, None]).reshape(-1, 3)


def render(task: Task, n: int, pulled: bool) -> Ready:
    """A step's views of n seeds; `pulled`: and the gradient of the fields. Units are seeds."""
    settings, scene = task.settings, task.scene
    chunk = step_chunk(settings.resolution, settings.samples)
    states = initial_states(task, list(range(n)))
    cameras = jax.tree.map(lambda leaf: jnp.stack([leaf] * settings.views), _front(settings))

    def views(params, occupancy):
        def view(camera, key):
            return scene.render(
                params, camera, key, height=settings.resolution, width=settings.resolution,
                samples_per_ray=settings.samples, chunk=chunk, occupancy=occupancy,
            ).rgb  # fmt: skip

        return jax.vmap(view)(cameras, jax.random.split(jax.random.key(0), settings.views))

    def both(params, occupancy):
        rgb, pull_back = jax.vjp(lambda p: views(p, occupancy), params)
        return pull_back(jnp.cos(rgb))

    function = jax.vmap(both if pulled else views)
    return per_unit(program(function, states.params, states.occupancy), n)


def _front(settings: Settings):
    return orbit(0.3, 0.2, settings.distance, np.deg2rad(settings.fov_deg))
