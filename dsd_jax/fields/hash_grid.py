"""Multiresolution hash grid (Müller et al. 2022, "Instant Neural Graphics Primitives").

Letters: n points, l levels, f features a level, e entries of one table, r cells along an axis.

A level of r cells an axis has (r + 1)^3 corners. When they fit into 2^log2_entries they are stored
densely, x fastest; otherwise corner (x, y, z) lives at (x p1 xor y p2 xor z p3) mod entries with
the primes 1, 2654435761 and 805459861 in uint32 arithmetic.

Speed. The forward pass is a sum of eight gathers, which XLA fuses with the hashing, so nothing of
size [n, 8] is written. The backward pass is one float32 scatter-add a level (`_scatter`), with the
corner indices computed again instead of kept. Plain autodiff of the same sum writes one table a
corner and was two to three times slower. `_interpolate` and `_dot_corners` are each other's
derivative, so gradients of gradients (normals inside a loss) take the same fast path.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

PRIMES = (1, 2654435761, 805459861)
CORNERS = tuple((x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1))


def level_resolutions(levels: int, base_resolution: int, growth: float) -> tuple[int, ...]:
    """Cells along an axis of every level: floor(base_resolution * growth^l)."""
    return tuple(int(np.floor(base_resolution * growth**level)) for level in range(levels))


def level_entries(resolution: int, log2_entries: int) -> int:
    """Entries of the table of a level: all its corners, or 2^log2_entries if these are fewer."""
    return min((resolution + 1) ** 3, 2**log2_entries)


def _corner_indices(cell, resolution: int, entries: int) -> list:
    """Table rows of the 8 corners of each cell. cell: three uint32 [n]; result: eight uint32 [n].

    Unsigned, so that indexing needs no pass for negative numbers.
    """
    side = resolution + 1
    dense = side**3 <= entries
    strides = (1, side, side * side) if dense else PRIMES
    axes = []
    for coordinate, stride in zip(cell, strides, strict=True):
        low = coordinate * np.uint32(stride)
        axes.append((low, low + np.uint32(stride)))
    rows = []
    for x, y, z in CORNERS:
        if dense:
            rows.append(axes[0][x] + axes[1][y] + axes[2][z])
        else:
            rows.append((axes[0][x] ^ axes[1][y] ^ axes[2][z]) & np.uint32(entries - 1))
    return rows


def _corner_weights(fraction) -> list:
    """Trilinear weights of the 8 corners. fraction: three [n] in [0, 1]; result: eight [n]."""
    axes = [(1 - t, t) for t in fraction]
    return [axes[0][x] * axes[1][y] * axes[2][z] for x, y, z in CORNERS]


def _gather(table, rows):
    return table.at[rows].get(mode="promise_in_bounds")


def _scatter(table, rows, weights, values):
    """Sum over corners c of weights[c] * values into the rows of zeros shaped like table."""
    updates = [weight[:, None] * values for weight in weights]
    return (
        jnp.zeros_like(table)
        .at[jnp.concatenate(rows)]
        .add(jnp.concatenate(updates), mode="promise_in_bounds")
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _interpolate(resolution, table, cell, weights):
    """sum_c weights[c] * table[row_c]: [n, f]."""
    rows = _corner_indices(cell, resolution, table.shape[0])
    terms = [w[:, None] * _gather(table, r) for w, r in zip(weights, rows, strict=True)]
    return sum(terms[1:], terms[0])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dot_corners(resolution, table, cell, values):
    """<table[row_c], values> for every corner c: eight [n]. The derivative by the weights."""
    rows = _corner_indices(cell, resolution, table.shape[0])
    return [jnp.sum(_gather(table, r) * values, -1) for r in rows]


def _interpolate_forward(resolution, table, cell, weights):
    return _interpolate(resolution, table, cell, weights), (table, cell, weights)


def _interpolate_backward(resolution, residuals, cotangent):
    table, cell, weights = residuals
    rows = _corner_indices(cell, resolution, table.shape[0])
    by_weights = _dot_corners(resolution, table, cell, cotangent)
    return _scatter(table, rows, weights, cotangent), None, by_weights


def _dot_corners_forward(resolution, table, cell, values):
    return _dot_corners(resolution, table, cell, values), (table, cell, values)


def _dot_corners_backward(resolution, residuals, cotangents):
    table, cell, values = residuals
    rows = _corner_indices(cell, resolution, table.shape[0])
    by_values = _interpolate(resolution, table, cell, cotangents)
    return _scatter(table, rows, cotangents, values), None, by_values


_interpolate.defvjp(_interpolate_forward, _interpolate_backward)
_dot_corners.defvjp(_dot_corners_forward, _dot_corners_backward)


def encode_level(
    table: Float[Array, "e f"], points: Float[Array, "n 3"], resolution: int
) -> Float[Array, "n f"]:
    """Trilinear interpolation of one level at points of the box [-1, 1]^3 (clipped to it)."""
    columns = [jnp.clip((points[:, axis] + 1) * 0.5, 0, 1) * resolution for axis in range(3)]
    lower = [jax.lax.stop_gradient(jnp.minimum(jnp.floor(c), resolution - 1)) for c in columns]
    fraction = [c - low for c, low in zip(columns, lower, strict=True)]
    cell = tuple(low.astype(jnp.uint32) for low in lower)
    return _interpolate(resolution, table, cell, _corner_weights(fraction))


def encode(
    tables: Sequence[Float[Array, "e f"]],
    points: Float[Array, "n 3"],
    resolutions: Sequence[int],
    open_levels=None,
) -> Float[Array, "n lf"]:
    """Features of all levels, coarsest first: [n, l * f].

    open_levels: how many levels take part, a float that may be traced (None: all). Level i is
    multiplied by clip(open_levels - i, 0, 1), so a fractional part fades a level in; the features
    of closed levels and their gradients are exactly zero.
    """
    features = [encode_level(t, points, r) for t, r in zip(tables, resolutions, strict=True)]
    if open_levels is not None:
        gates = [jnp.clip(open_levels - i, 0, 1) for i in range(len(features))]
        features = [g * f for g, f in zip(gates, features, strict=True)]
    return jnp.concatenate(features, -1)


def _uniform(key, shape, dtype=jnp.float32):
    """Instant-NGP's initial values: uniform in +-1e-4."""
    return jax.random.uniform(key, shape, dtype, -1e-4, 1e-4)


class HashGrid(nn.Module):
    """The encoding as a Flax module; parameters `level_00`, ...: float32 tables [entries, features].

    Attributes:
        levels, features: number of levels and of features a level.
        log2_entries: log2 of the largest table.
        base_resolution, growth: cells of the coarsest level, and their ratio level to level.
    """

    levels: int = 16
    features: int = 2
    log2_entries: int = 19
    base_resolution: int = 16
    growth: float = 1.447

    @nn.compact
    def __call__(self, points: Float[Array, "n 3"], open_levels=None) -> Float[Array, "n lf"]:
        """Points of [-1, 1]^3 to [n, levels * features]; see `encode` for open_levels."""
        resolutions = level_resolutions(self.levels, self.base_resolution, self.growth)
        tables = [
            self.param(
                f"level_{i:02d}", _uniform, (level_entries(r, self.log2_entries), self.features)
            )
            for i, r in enumerate(resolutions)
        ]
        return encode(tables, points, resolutions, open_levels)
