"""Trilinear lookup in hashed or dense tables: the inner loop of the hash grid.

Letters: n points, f features, e entries of a table, k tables stacked into one of k e rows, c the 8
corners of a cell. `resolution` is the number of cells along an axis.

`interpolate` and `dot_corners` are each other's derivative, and both have the same derivative by
the table. So gradients of gradients (normals inside a loss) stay on the same path:

    interpolate(T, w)_n = sum_c w_cn T[row_cn]       dot_corners(T, v)_cn = <T[row_cn], v_n>
    scatter(w, v)[row_cn] += w_cn v_n

The forward pass is one sum of eight gathers, which XLA fuses with the hashing: nothing of size
[n, 8] is stored. The backward pass computes the rows again and is one float32 scatter-add. Plain
autodiff of the same sum writes one table for each corner and takes two to three times longer.

A GPU adds to one address at a time, and in a coarse level many points share a cell. There the
scatter-add can go to several copies of each row, side by side, of which point i takes copy
i mod copies; their sum is the gradient. Neighbours on a ray then add to neighbouring addresses.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PRIMES = (1, 2654435761, 805459861)
CORNERS = tuple((x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1))


class Place(NamedTuple):
    """Where n points lie.

    Attributes:
        cell: three uint32 [n], the lower corner of each point's cell.
        first_row: uint32 [n], where each point's table begins in the stack.
    """

    cell: tuple[jax.Array, jax.Array, jax.Array]
    first_row: jax.Array


class Level(NamedTuple):
    """The fixed numbers of a level.

    Attributes:
        resolution: cells along an axis.
        entries: of one table.
        copies: of each row that the backward pass adds to.
        paired: whether the forward pass reads the two features of a row as one complex number, in
            one load, for which a GPU takes two thirds of the time.
    """

    resolution: int
    entries: int
    copies: int = 1
    paired: bool = False


def corner_rows(level: Level, place: Place) -> list[jax.Array]:
    """Table rows of the 8 corners of each cell: eight uint32 [n], ordered like `CORNERS`.

    Dense (x fastest) if all (resolution + 1)^3 corners fit, else Instant-NGP's hash
    (x xor y 2654435761 xor z 805459861) mod entries. Unsigned, so that indexing does not spend a
    pass on negative numbers.
    """
    side = level.resolution + 1
    dense = side**3 <= level.entries
    axes = []
    for index, stride in zip(place.cell, (1, side, side**2) if dense else PRIMES, strict=True):
        low = index * np.uint32(stride)
        axes.append((low, low + np.uint32(stride)))
    if dense:
        rows = [axes[0][x] + axes[1][y] + axes[2][z] for x, y, z in CORNERS]
    else:
        mask = np.uint32(level.entries - 1)
        rows = [(axes[0][x] ^ axes[1][y] ^ axes[2][z]) & mask for x, y, z in CORNERS]
    return [place.first_row + row for row in rows]


def corner_weights(fraction) -> list[jax.Array]:
    """Trilinear weights of the 8 corners. fraction: three [n] in [0, 1]; result: eight [n]."""
    axes = [(1 - t, t) for t in fraction]
    return [axes[0][x] * axes[1][y] * axes[2][z] for x, y, z in CORNERS]


def _gather(table, row):
    return table.at[row].get(mode="promise_in_bounds")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def interpolate(level: Level, table, place: Place, weights):
    """sum_c weights[c] table[row_c]: [n, f] from table [k e, f] and weights, eight [n]."""
    rows = corner_rows(level, place)
    if level.paired:
        pairs = jax.lax.complex(table[:, 0], table[:, 1])
        terms = [w * _gather(pairs, row) for w, row in zip(weights, rows, strict=True)]
        mean = sum(terms[1:], terms[0])
        return jnp.stack([mean.real, mean.imag], -1)
    terms = [w[:, None] * _gather(table, row) for w, row in zip(weights, rows, strict=True)]
    return sum(terms[1:], terms[0])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def dot_corners(level: Level, table, place: Place, values):
    """<table[row_c], values> for every corner: eight [n] from table [k e, f], values [n, f]."""
    features = range(values.shape[-1])
    return [
        sum(_gather(table, row)[:, f] * values[:, f] for f in features)
        for row in corner_rows(level, place)
    ]


def scatter(level: Level, rows: int, place: Place, weights, values):
    """The table [rows, f] in which weights[c] values [n, f] has been added up at row_c."""
    n, features = values.shape
    zeros = jnp.zeros((rows * level.copies, features), values.dtype)
    updates = jnp.concatenate([weight[:, None] * values for weight in weights])
    where = corner_rows(level, place)
    if level.copies > 1:
        copy = jnp.arange(n, dtype=jnp.uint32) % np.uint32(level.copies)
        where = [row * np.uint32(level.copies) + copy for row in where]
    table = zeros.at[jnp.concatenate(where)].add(updates, mode="promise_in_bounds")
    return table.reshape(rows, level.copies, features).sum(1) if level.copies > 1 else table


def _interpolate_forward(level, table, place, weights):
    return interpolate(level, table, place, weights), (table, place, weights)


def _interpolate_backward(level, residuals, cotangent):
    table, place, weights = residuals
    by_table = scatter(level, table.shape[0], place, weights, cotangent)
    return by_table, None, dot_corners(level, table, place, cotangent)


def _dot_corners_forward(level, table, place, values):
    return dot_corners(level, table, place, values), (table, place, values)


def _dot_corners_backward(level, residuals, cotangents):
    table, place, values = residuals
    by_table = scatter(level, table.shape[0], place, cotangents, values)
    return by_table, None, interpolate(level, table, place, cotangents)


interpolate.defvjp(_interpolate_forward, _interpolate_backward)
dot_corners.defvjp(_dot_corners_forward, _dot_corners_backward)
