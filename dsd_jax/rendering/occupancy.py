"""An occupancy grid: where samples are worth their cost. Pure functions on a pytree.

Letters: g cells along an axis of [-1, 1]^3, r rays, m bins along a ray. The idea is Instant-NGP's
occupancy grid; instead of skipping cells (dynamic shapes) a ray's fixed budget of samples is drawn
with a probability that follows the grid, see `sampling`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dsd_jax.fields.solids import boxed


class OccupancyGrid(NamedTuple):
    """State of the grid; vmap over seeds gives every leaf a leading axis.

    Attributes:
        density: [g, g, g] (x, y, z) decaying maximum of the density seen in each cell.
        occupied: [g, g, g] whether to sample there: matter in the cell or in one of its neighbours.
    """

    density: Float[Array, "g g g"]
    occupied: Bool[Array, "g g g"]


def init(resolution: int = 32) -> OccupancyGrid:
    """A grid that knows nothing yet: every cell may be occupied, so sampling is uniform."""
    shape = (resolution,) * 3
    return OccupancyGrid(jnp.zeros(shape, jnp.float32), jnp.ones(shape, bool))


def update(
    grid: OccupancyGrid,
    field_fn: Callable,
    key: jax.Array,
    *,
    decay: float = 0.8,
    threshold: float = 0.005,
    points_per_cell: int = 1,
) -> OccupancyGrid:
    """Evaluate the field at jittered points of every cell: density = max(decay * old, new).

    A cell holds matter if it would absorb more than `threshold` of a ray crossing it straight; its
    26 neighbours are marked occupied as well. Costs g^3 * points_per_cell evaluations, so call it
    every 16 steps or so, in a jitted function of its own: inside the vmapped step a `lax.cond`
    would evaluate both branches every time.

    Args:
        field_fn: points [n, 3] -> (density [n], anything).
    """
    cells = grid.density.shape[0]
    corner = jnp.stack(jnp.meshgrid(*[jnp.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 3)
    jitter = jax.random.uniform(key, (points_per_cell, *corner.shape))
    points = 2 * (corner + jitter) / cells - 1
    density, _ = field_fn(points.reshape(-1, 3))
    seen = jnp.max(density.reshape(points_per_cell, -1), 0).reshape(grid.density.shape)
    kept = jnp.maximum(decay * grid.density, jax.lax.stop_gradient(seen).astype(jnp.float32))
    matter = 1 - jnp.exp(-kept * 2 / cells) > threshold
    return OccupancyGrid(kept, boxed(matter))


def occupied_at(grid: OccupancyGrid, points: Float[Array, "n 3"]) -> Bool[Array, "n"]:
    """Whether the cells of points are marked occupied (points outside: the nearest cell)."""
    cells = grid.occupied.shape[0]
    lower = jnp.clip(jnp.floor((points + 1) * (cells / 2)), 0, cells - 1)
    index = lower.astype(jnp.int32).astype(jnp.uint32)
    row = (index[:, 0] * np.uint32(cells) + index[:, 1]) * np.uint32(cells) + index[:, 2]
    return grid.occupied.reshape(-1).at[row].get(mode="promise_in_bounds")


def ray_weights(
    grid: OccupancyGrid,
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    near: Float[Array, "r"],
    far: Float[Array, "r"],
    *,
    bins: int | None = None,
    floor: float = 0.02,
) -> Float[Array, "r m"]:
    """Sampling weights of m equal bins of [near, far]: 1 where occupied, `floor` elsewhere.

    The floor keeps empty space sampled, so that matter can appear there; a ray that meets no
    occupied cell is sampled uniformly. bins: default two for each cell along an axis.
    """
    bins = 2 * grid.occupied.shape[0] if bins is None else bins
    occupied = _occupied_on(grid, origins, directions, near, far, bins)
    return jnp.where(occupied, 1.0, floor).astype(near.dtype)


def is_met(grid: OccupancyGrid, origins, directions, near, far) -> Bool[Array, "r"]:
    """Whether rays [r, 3] meet an occupied cell between near and far [r], as `ray_weights` sees."""
    bins = 2 * grid.occupied.shape[0]
    return _occupied_on(grid, origins, directions, near, far, bins).any(-1)


def _occupied_on(grid, origins, directions, near, far, bins: int) -> Bool[Array, "r m"]:
    """Whether the middles of the bins are occupied."""
    middle = (jnp.arange(bins, dtype=near.dtype) + 0.5) / bins
    distances = near[:, None] + middle * (far - near)[:, None]
    points = origins[:, None] + distances[..., None] * directions[:, None]
    return occupied_at(grid, points.reshape(-1, 3)).reshape(distances.shape)
