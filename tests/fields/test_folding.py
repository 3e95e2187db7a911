"""A folded lookup runs once under vmap, and gives what a loop gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.fields.folding import folded

CALLS = []


def lookup(tables, points, number):
    """A row of the point's own table, times the point."""
    CALLS.append((tables.shape, points.shape))
    row = (jnp.abs(points) * 7).astype(jnp.int32) % tables.shape[1]
    return (), tables[number.astype(jnp.int32), row] * jnp.sin(points)


def once(table, points):
    return folded(lookup)(table[None], points, jnp.zeros(len(points), jnp.uint32))[1]


@pytest.mark.parametrize("shared", [False, True])
def test_vmap_and_its_gradient_match_a_loop(shared):
    tables = jax.random.normal(jax.random.key(0), (3, 5))
    points = jax.random.normal(jax.random.key(1), (3, 8))
    axes = (None if shared else 0, 0)
    arguments = (tables[0] if shared else tables, points)

    def both(table, points):
        return jax.value_and_grad(lambda t, x: jnp.sum(once(t, x) ** 2), (0, 1))(table, points)

    together = jax.vmap(both, axes)(*arguments)
    for s in range(3):
        alone = both(tables[0] if shared else tables[s], points[s])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[s], b, rtol=1e-5)


def test_tables_are_stacked_and_points_concatenated():
    CALLS.clear()
    jax.make_jaxpr(jax.vmap(jax.vmap(once, (None, 0))))(jnp.ones((4, 5)), jnp.ones((4, 3, 8)))
    assert CALLS[-1][1] == (4 * 3 * 8,)
    assert CALLS[-1][0][1] == 5
