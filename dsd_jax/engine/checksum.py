"""Checksums of stacked states, one a seed: any one byte of a checkpoint that differs shows in them.

Letters: c seeds a chunk.
"""

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt

_BITS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def of_rows(leaves: Mapping[str, Array]) -> UInt[Array, "c"]:
    """Of leaves [c, ...] by name, in the order of the names; jittable.

    The sum of all numbers, as bits, times odd weights, modulo 2^32: one number alone that differs
    always changes it.
    """
    total = jnp.zeros((), jnp.uint32)
    for name in sorted(leaves):
        total = 31 * total + jax.vmap(_of_row)(leaves[name])
    return total


def _of_row(row: Array) -> UInt[Array, ""]:
    bits = row if row.dtype == bool else jax.lax.bitcast_convert_type(row, _BITS[row.itemsize])
    bits = bits.astype(jnp.uint32).reshape(-1)
    odd = 2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1
    return jnp.sum(bits * odd, dtype=jnp.uint32)


def of_numbers(arrays: Mapping[str, np.ndarray]) -> UInt[np.ndarray, "1"]:
    """CRC-32 of a few arrays of this process, with their names."""
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(name.encode() + np.asarray(arrays[name]).tobytes(), crc)
    return np.array([crc], np.uint32)
