"""From a density on a grid to a signed distance: pure functions, jittable and vmappable.

Letters: g grid points along an axis of the box [-1, 1]^3 (x, y, z). Lengths are in world units.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Pieces with less than this share of the largest piece's grid points are left out.
KEPT_SHARE = 0.02


def on_grid(
    function: Callable[[Float[Array, "n 3"]], Float[Array, "n"]], cells: int
) -> Float[Array, "g g g"]:
    """A function of points at the corners of so many cells along an axis, plane by plane."""
    axis = jnp.linspace(-1, 1, cells + 1)
    y, z = jnp.meshgrid(axis, axis, indexing="ij")

    def plane(x):
        points = jnp.stack([jnp.full_like(y, x), y, z], -1).reshape(-1, 3)
        return function(points).reshape(y.shape)

    return jax.lax.map(plane, axis)


def solid_of(dense: Bool[Array, "g g g"], closing: int) -> Bool[Array, "g g g"]:
    """Where an object is solid, from where it is dense.

    Gaps up to twice `closing` grid points wide are closed, hollows that nothing leads to are
    filled, and small loose pieces left out.
    """
    shut = ~_rounded(~_rounded(jnp.pad(dense, closing), closing), closing)
    shut = shut[(slice(closing, -closing or None),) * 3]
    return without_crumbs(~_outside(shut))


def without_crumbs(solid: Bool[Array, "g g g"]) -> Bool[Array, "g g g"]:
    """Only the pieces that have at least `KEPT_SHARE` of the largest one's grid points."""
    labels = pieces(solid)
    sizes = jnp.zeros(solid.size + 1, jnp.int32).at[labels.reshape(-1)].add(1).at[0].set(0)
    return solid & (sizes[labels] >= KEPT_SHARE * jnp.max(sizes))


def pieces(solid: Bool[Array, "g g g"]) -> Int[Array, "g g g"]:
    """A number from 1 on for each piece of grid points that share a face; 0 outside."""
    first = jnp.arange(1, solid.size + 1, dtype=jnp.int32).reshape(solid.shape)

    def spread(labels):
        return jnp.where(solid, _over_neighbours(jnp.maximum, labels, 0), 0)

    return _until_still(spread, jnp.where(solid, first, 0))


def halved(dense: Bool[Array, "2g-1 2g-1 2g-1"]) -> Bool[Array, "g g g"]:
    """Every other grid point, dense where one within a step of it is: nothing thin is lost."""
    return jax.lax.reduce_window(
        dense, False, jax.lax.bitwise_or, (3, 3, 3), (2, 2, 2), [(1, 1)] * 3
    )


def signed_distance(solid: Bool[Array, "g g g"], rim: float = 0.5) -> Float[Array, "g g g"]:
    """Distance to the surface `rim` of a step beyond the solid grid points; negative inside.

    Exact but for the grid (Felzenszwalb and Huttenlocher 2012, axis by axis, by brute force). The
    diagonal of the box where all or nothing is solid.
    """
    cell = 2.0 / (solid.shape[0] - 1)
    outside, inside = (jnp.sqrt(_squared(mask)) for mask in (solid, ~solid))
    steps = jnp.where(solid, 1 - rim - inside, outside - rim)
    return jnp.clip(steps * cell, -3.5, 3.5)


def smoothed(values: Float[Array, "g g g"]) -> Float[Array, "g g g"]:
    """A mean over each point and its neighbours, of weights 1/4, 1/2, 1/4 along each axis.

    Where that would change a value's sign it stays, so that nothing thin is lost.
    """

    def along(values, axis):
        edge = [(1, 1) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(values, edge, mode="edge")
        parts = [
            jax.lax.slice_in_dim(padded, k, k + values.shape[axis], axis=axis) for k in range(3)
        ]
        return 0.25 * parts[0] + 0.5 * parts[1] + 0.25 * parts[2]

    found = values
    for axis in range(3):
        found = along(found, axis)
    return jnp.where((found < 0) == (values < 0), found, values)


def _outside(solid: Bool[Array, "g g g"]) -> Bool[Array, "g g g"]:
    """What is not solid and is reached from the box's border."""
    inner = jnp.zeros(tuple(n - 2 for n in solid.shape), bool)
    border = jnp.pad(inner, 1, constant_values=True) & ~solid
    return _until_still(lambda seen: _grown(seen) & ~solid, border)


def _squared(mask: Bool[Array, "g g g"]) -> Float[Array, "g g g"]:
    """Squared distance of each grid point to the nearest one of the mask, in grid steps."""
    found = jnp.where(mask, 0.0, 1e6)
    for axis in range(3):
        lines, place = jnp.moveaxis(found, axis, 0), jnp.arange(mask.shape[axis])

        def nearest(i, lines=lines, place=place):
            return jnp.min(lines + jnp.square(place - i)[:, None, None], 0)

        found = jnp.moveaxis(jax.lax.map(nearest, place), 0, axis)
    return found


def _grown(mask: Bool[Array, "g g g"]) -> Bool[Array, "g g g"]:
    """The mask and what shares a face with it."""
    return _over_neighbours(jnp.logical_or, mask, False)


def _over_neighbours(combine, values, outside, axes=(0, 1, 2)):
    """`combine` over each grid point and those that share a face with it, along these axes."""
    found = values
    for axis in axes:
        edge = [(1, 1) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(values, edge, constant_values=outside)
        for k in (0, 2):
            part = jax.lax.slice_in_dim(padded, k, k + values.shape[axis], axis=axis)
            found = combine(found, part)
    return found


def _rounded(mask: Bool[Array, "g g g"], radius: int) -> Bool[Array, "g g g"]:
    """The mask grown by about a ball: by turns to all 26 neighbours and to the six."""
    for i in range(radius):
        mask = _grown(mask) if i % 2 else boxed(mask)
    return mask


def boxed(mask: Bool[Array, "g g g"]) -> Bool[Array, "g g g"]:
    """The mask and its 26 neighbours."""
    for axis in range(3):
        mask = _over_neighbours(jnp.logical_or, mask, False, (axis,))
    return mask


def _until_still(step, values):
    """`step` again and again until nothing changes."""

    def going(pair):
        return jnp.any(pair[0] != pair[1])

    def go(pair):
        return step(pair[0]), pair[0]

    return jax.lax.while_loop(going, go, (step(values), values))[0]
