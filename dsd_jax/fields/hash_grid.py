"""Multiresolution hash grid (Müller et al. 2022, "Instant Neural Graphics Primitives").

Letters: n points, l levels, f features a level, e entries of a level's table, k stacked tables.

A level of r cells an axis has (r + 1)^3 corners. When they fit into 2^log2_entries they are stored
densely, x fastest; otherwise corner (x, y, z) lives at (x p1 xor y p2 xor z p3) mod entries with
the primes 1, 2654435761 and 805459861 in uint32 arithmetic.

Tables and their gradients are float32, always: scatter-adds in 16 bits are slow on GPUs, and lose
small contributions. The inner loop is in `interpolation`; `folding` is what it becomes under vmap.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from dsd_jax.fields.folding import folded
from dsd_jax.fields.interpolation import Level, Place, corner_weights, interpolate

# Rows over which the gradient of a coarse level's table is spread on a GPU, see `level_copies`:
# on an H200 16 levels of 2^20 points take 1.84 ms with it and 2.51 ms without.
GPU_SPREAD = 2**17
_MOST_COPIES = 32
# The name by which `jax.checkpoint` may save the features: they cost more time than memory.
ENCODING = "encoding"


def level_resolutions(levels: int, base_resolution: int, growth: float) -> tuple[int, ...]:
    """Cells along an axis of every level: floor(base_resolution * growth^l)."""
    return tuple(int(np.floor(base_resolution * growth**level)) for level in range(levels))


def level_entries(resolution: int, log2_entries: int) -> int:
    """Entries of the table of a level: all its corners, or 2^log2_entries if these are fewer."""
    return min((resolution + 1) ** 3, 2**log2_entries)


def level_copies(entries: int, spread: int) -> int:
    """Copies of a table's rows that its gradient is added up in: at most 32, a power of two.

    As many as `spread` rows hold; one for tables that are larger than half of it.
    """
    fit = min(max(spread // entries, 1), _MOST_COPIES)
    return 2 ** (fit.bit_length() - 1)


def encode(
    tables: Sequence[Float[Array, "e f"]],
    points: Float[Array, "n 3"],
    resolutions: Sequence[int],
    open_levels=None,
    spread: int | None = None,
) -> Float[Array, "n lf"]:
    """Trilinearly interpolated features of all levels, coarsest first: [n, l * f].

    points: of the box [-1, 1]^3, and clipped to it.
    open_levels: how many levels take part, a float that may be traced (None: all). Level i is
    multiplied by clip(open_levels - i, 0, 1), so a fractional part fades a level in; the features
    of closed levels and their gradients are exactly zero.
    spread: rows that gradients of coarse levels may be spread over, see `level_copies` (None:
    `GPU_SPREAD` on a GPU, else 0). It changes the order of additions alone.
    """
    if spread is None:
        spread = GPU_SPREAD if jax.default_backend() == "gpu" else 0

    def lookup(tables, points, number):
        points, features = _keep(points), []
        for table, resolution in zip(tables, resolutions, strict=True):
            feature = _encode_level(table, points, number, resolution, spread)
            if jax.default_backend() == "gpu":
                # A level after the other: its cache holds the table of one, not those of all.
                feature, points = jax.lax.optimization_barrier((feature, points))
            features.append(feature)
        return (), jnp.concatenate(features, -1)

    stacked = [table[None] for table in tables]
    _, features = folded(lookup)(stacked, points, jnp.zeros(points.shape[0], jnp.uint32))
    features = checkpoint_name(features, ENCODING)
    if open_levels is None:
        return features
    gates = jnp.clip(open_levels - jnp.arange(len(tables)), 0, 1)
    return features * jnp.repeat(gates, tables[0].shape[-1]).astype(features.dtype)


def _encode_level(table, points, number, resolution: int, spread: int) -> jax.Array:
    """Features [n, f] from tables [k, e, f]; number [n] says which of the k is a point's own."""
    tables, entries, features = table.shape
    unit = jnp.clip((points + 1) * 0.5, 0, 1)
    columns = [unit[:, axis] * resolution for axis in range(3)]
    lower = [jax.lax.stop_gradient(jnp.minimum(jnp.floor(c), resolution - 1)) for c in columns]
    fraction = [c - low for c, low in zip(columns, lower, strict=True)]
    # By way of int32: CPUs convert floats to uint32 one at a time.
    x, y, z = (low.astype(jnp.int32).astype(jnp.uint32) for low in lower)
    place = Place((x, y, z), number * np.uint32(entries))
    rows = table.reshape(tables * entries, features)
    paired = features == 2 and jax.default_backend() == "gpu"
    level = Level(resolution, entries, level_copies(entries, spread), paired)
    return interpolate(level, rows, place, corner_weights(fraction))


def _keep(points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """The points themselves, but stored.

    XLA fuses cheap work into each of its users, so the points (a whole ray: its random numbers, its
    camera) would be computed anew in every corner of every level, which doubles the time of a step.
    XLA's CPU compiler ignores optimization barriers; a matrix product it does not look through.
    """

    def product(x):
        return jnp.matmul(x, jnp.eye(3, dtype=x.dtype), precision="highest")

    return jax.lax.platform_dependent(points, cpu=product, default=jax.lax.optimization_barrier)


def _uniform(key, shape, dtype=jnp.float32):
    """Instant-NGP's initial values: uniform in +-1e-4."""
    return jax.random.uniform(key, shape, dtype, -1e-4, 1e-4)


class HashGrid(nn.Module):
    """The encoding as a Flax module; its parameters `level_00`, ... are tables [entries, features].

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


def grid_or_mlp(params: Any) -> Any:
    """Learning rates of a module around one `HashGrid`: its tables are "grid", all else "mlp"."""

    def group(path, leaf):
        return "grid" if "HashGrid_0" in [entry.key for entry in path] else "mlp"

    return jax.tree_util.tree_map_with_path(group, params)
