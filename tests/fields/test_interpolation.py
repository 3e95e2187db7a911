"""Corners and weights by hand; scatter is the transpose of interpolate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.fields.interpolation import (
    CORNERS,
    Level,
    Place,
    corner_rows,
    corner_weights,
    dot_corners,
    interpolate,
    scatter,
)


def u32(*values):
    return jnp.array(values, jnp.uint32)


def test_dense_rows_by_hand():
    """Two cells an axis: 3 corners, strides 1, 3, 9; the second point uses the second table."""
    place = Place((u32(0, 1), u32(0, 0), u32(0, 1)), u32(0, 27))
    rows = np.stack(corner_rows(Level(2, 27), place), -1)
    np.testing.assert_array_equal(rows[0], [0, 1, 3, 4, 9, 10, 12, 13])
    np.testing.assert_array_equal(rows[1], 27 + 10 + rows[0])


def test_hashed_rows_by_hand():
    place = Place((u32(5), u32(7), u32(11)), u32(0))
    rows = np.stack(corner_rows(Level(100, 64), place), -1)[0]
    expected = [
        (5 + x) ^ ((7 + y) * 2654435761 % 2**32) ^ ((11 + z) * 805459861 % 2**32)
        for x, y, z in CORNERS
    ]
    np.testing.assert_array_equal(rows, np.array(expected) % 64)


def test_weights_by_hand():
    weights = corner_weights([jnp.array([0.25]), jnp.array([0.5]), jnp.array([0.0])])
    np.testing.assert_allclose(
        np.concatenate(weights), [0.375, 0.125, 0.375, 0.125, 0, 0, 0, 0], atol=1e-7
    )


@pytest.mark.parametrize(("copies", "paired"), [(1, False), (1, True), (2, False), (8, False)])
def test_scatter_and_dot_corners_are_adjoint_to_interpolate(copies, paired):
    """<interpolate(T, w), v> = <T, scatter(w, v)> = sum_c <w_c, dot_corners(T, v)_c>."""
    keys = jax.random.split(jax.random.key(0), 5)
    cell = tuple(jax.random.randint(k, (40,), 0, 30).astype(jnp.uint32) for k in keys[:3])
    level, place = (
        Level(30, 32, copies, paired),
        Place(cell, jnp.where(jnp.arange(40) < 20, 0, 32).astype("uint32")),
    )
    table, values = jax.random.normal(keys[3], (64, 2)), jax.random.normal(keys[4], (40, 2))
    weights = list(jax.random.uniform(keys[0], (8, 40)))
    forward = jnp.vdot(interpolate(level, table, place, weights), values)
    added_up = scatter(level, 64, place, weights, values)
    assert added_up.shape == table.shape
    by_table = jnp.vdot(table, added_up)
    dots = dot_corners(level, table, place, values)
    by_weights = sum(jnp.vdot(w, d) for w, d in zip(weights, dots, strict=True))
    np.testing.assert_allclose(by_table, forward, rtol=1e-4)
    np.testing.assert_allclose(by_weights, forward, rtol=1e-4)
