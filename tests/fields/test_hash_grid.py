"""The hash grid against a brute-force NumPy version, and its derivatives against autodiff of a
plain one."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.fields import hash_grid
from dsd_jax.fields.hash_grid import (
    HashGrid,
    encode,
    level_copies,
    level_entries,
    level_resolutions,
)

RESOLUTIONS = (4, 9, 30)  # 5^3 = 125 and 10^3 = 1000 fit into 2^10 entries, 31^3 does not
ENTRIES = (125, 1000, 1024)


def brute_force(tables, points, resolutions):
    """Loops over points, levels and corners in Python integers."""
    out = []
    for point in np.asarray(points, np.float64):
        row = []
        for table, r in zip(tables, resolutions, strict=True):
            x = np.clip((point + 1) / 2, 0, 1) * r
            cell = np.minimum(np.floor(x), r - 1).astype(int)
            value = np.zeros(table.shape[1])
            for corner in itertools.product((0, 1), repeat=3):
                i, j, k = (int(c) for c in cell + corner)
                if (r + 1) ** 3 <= len(table):
                    index = i + j * (r + 1) + k * (r + 1) ** 2
                else:
                    hashed = (i * 1) ^ (j * 2654435761 % 2**32) ^ (k * 805459861 % 2**32)
                    index = hashed % len(table)
                weight = np.prod([f if c else 1 - f for f, c in zip(x - cell, corner, strict=True)])
                value += weight * np.asarray(table[index], np.float64)
            row.append(value)
        out.append(np.concatenate(row))
    return np.array(out)


def make_tables(key, features=2):
    keys = jax.random.split(key, len(ENTRIES))
    return [jax.random.normal(k, (e, features)) for k, e in zip(keys, ENTRIES, strict=True)]


def make_points(key, n=64):
    corners = jnp.array([[-1.0, -1, -1], [1, 1, 1], [1, -1, 0.3], [0, 0, 0], [-1.5, 2, 0]])
    return jnp.concatenate([jax.random.uniform(key, (n, 3), minval=-1, maxval=1), corners])


def plain(tables, points, resolutions):
    """The same function, left to autodiff."""
    features = []
    for table, r in zip(tables, resolutions, strict=True):
        x = jnp.clip((points + 1) / 2, 0, 1) * r
        cell = jnp.minimum(jnp.floor(x), r - 1).astype(jnp.int32)
        value = 0.0
        for corner in itertools.product((0, 1), repeat=3):
            c = (cell + jnp.array(corner)).astype(jnp.uint32)
            if (r + 1) ** 3 <= len(table):
                index = c[:, 0] + c[:, 1] * (r + 1) + c[:, 2] * (r + 1) ** 2
            else:
                mixed = (
                    c[:, 0] ^ (c[:, 1] * np.uint32(2654435761)) ^ (c[:, 2] * np.uint32(805459861))
                )
                index = mixed % len(table)
            f = x - cell
            weight = jnp.prod(jnp.where(jnp.array(corner) == 1, f, 1 - f), -1)
            value = value + weight[:, None] * table[index]
        features.append(value)
    return jnp.concatenate(features, -1)


def test_entries_and_resolutions():
    assert level_resolutions(4, 16, 1.5) == (16, 24, 36, 54)
    assert [level_entries(r, 10) for r in RESOLUTIONS] == list(ENTRIES)


@pytest.mark.parametrize("features", [1, 2, 4])
def test_matches_brute_force(features):
    tables = make_tables(jax.random.key(0), features)
    points = make_points(jax.random.key(1))
    got = jax.jit(lambda t, x: encode(t, x, RESOLUTIONS))(tables, points)
    expected = brute_force(tables, points, RESOLUTIONS)
    assert got.shape == (len(points), 3 * features)
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_copies_fill_the_rows_that_gradients_may_be_spread_over():
    assert [level_copies(entries, 2**12) for entries in (100, 125, 1000, 2048, 2049, 9999)] == [
        32, 32, 4, 2, 1, 1,
    ]  # fmt: skip
    assert level_copies(125, 0) == 1


@pytest.mark.parametrize("spread", [0, 2**12])
def test_gradients_match_plain_autodiff(spread):
    tables = make_tables(jax.random.key(0))
    points = make_points(jax.random.key(1))[:60]
    cotangent = jax.random.normal(jax.random.key(2), (60, 6))

    def loss(function, tables, points):
        return jnp.sum(jnp.sin(function(tables, points, RESOLUTIONS)) * cotangent)

    ours = partial(encode, spread=spread)
    got = jax.jit(jax.grad(lambda t, x: loss(ours, t, x), (0, 1)))(tables, points)
    expected = jax.jit(jax.grad(lambda t, x: loss(plain, t, x), (0, 1)))(tables, points)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_second_derivatives_match_plain_autodiff():
    """A loss on the gradient by points, differentiated by the tables: normals inside a loss."""
    tables = make_tables(jax.random.key(0))
    points = make_points(jax.random.key(1))[:60]

    def loss(function, tables):
        slope = jax.grad(lambda x: jnp.sum(jnp.sin(function(tables, x, RESOLUTIONS))))(points)
        return jnp.sum(jnp.cos(0.1 * slope))

    got = jax.jit(jax.grad(lambda t: loss(encode, t)))(tables)
    expected = jax.jit(jax.grad(lambda t: loss(plain, t)))(tables)
    for a, b in zip(got, expected, strict=True):
        assert jnp.max(jnp.abs(b)) > 0.1
        np.testing.assert_allclose(a, b, atol=2e-3)


@pytest.mark.parametrize("shared_tables", [False, True])
def test_vmap_of_value_and_gradient_is_a_loop(shared_tables):
    points = jnp.stack([make_points(jax.random.key(s)) for s in range(3)])
    many = [make_tables(jax.random.key(10 + (0 if shared_tables else s))) for s in range(3)]
    axis = None if shared_tables else 0
    tables = many[0] if shared_tables else jax.tree.map(lambda *x: jnp.stack(x), *many)

    def both(tables, points):
        def loss(tables, points):
            slope = jax.grad(lambda x: jnp.sum(jnp.sin(encode(tables, x, RESOLUTIONS))))(points)
            return jnp.mean(encode(tables, points, RESOLUTIONS) ** 2) + jnp.mean(jnp.cos(slope))

        return jax.value_and_grad(loss, (0, 1))(tables, points)

    got = jax.jit(jax.vmap(both, in_axes=(axis, 0)))(tables, points)
    single = jax.jit(both)
    for s in range(3):
        expected = single(many[s], points[s])
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a[s], b, atol=1e-5)


@pytest.mark.parametrize("spread", [0, 2**11])
def test_nested_vmap_and_gradient_of_vmap(spread):
    tables = jax.tree.map(
        lambda *x: jnp.stack(x), *[make_tables(jax.random.key(s)) for s in range(2)]
    )
    points = jax.random.uniform(jax.random.key(5), (2, 3, 20, 3), minval=-1, maxval=1)

    def loss(tables, function):
        views = jax.vmap(lambda t, x: jax.vmap(lambda y: function(t, y, RESOLUTIONS))(x))
        return jnp.sum(jnp.sin(views(tables, points)))

    got = jax.jit(jax.value_and_grad(lambda t: loss(t, partial(encode, spread=spread))))(tables)
    expected = jax.jit(jax.value_and_grad(lambda t: loss(t, plain)))(tables)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_open_levels_close_features_and_gradients():
    tables = make_tables(jax.random.key(0))
    points = make_points(jax.random.key(1))
    full = encode(tables, points, RESOLUTIONS)

    @jax.jit
    def at(open_levels):
        def loss(tables):
            features = encode(tables, points, RESOLUTIONS, open_levels)
            return jnp.sum(features), features

        return jax.grad(loss, has_aux=True)(tables)

    gradient, features = at(1.25)
    np.testing.assert_allclose(features[:, :2], full[:, :2], atol=1e-5)
    np.testing.assert_allclose(features[:, 2:4], 0.25 * full[:, 2:4], atol=1e-5)
    assert not np.any(features[:, 4:])
    assert not np.any(gradient[2])
    assert np.any(gradient[1])
    np.testing.assert_allclose(at(3.0)[1], full, atol=1e-5)


def test_gradients_are_spread_by_default_on_a_gpu_alone(monkeypatch):
    """The scatter-add of a table of 125 rows goes to 32 times as many."""
    tables, points = make_tables(jax.random.key(0)), make_points(jax.random.key(1))
    monkeypatch.setattr(hash_grid, "GPU_SPREAD", 2**12)

    def program():
        slope = jax.grad(lambda t, x: jnp.sum(encode(t, x, RESOLUTIONS)))
        return str(jax.make_jaxpr(slope)(tables, points))

    assert "f32[4000,2]" not in program()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "f32[4000,2]" in program()


def test_module_has_small_float32_tables():
    grid = HashGrid(levels=3, features=2, log2_entries=10, base_resolution=4, growth=2.7)
    params = grid.init(jax.random.key(0), jnp.zeros((1, 3)))["params"]
    shapes = {name: value.shape for name, value in params.items()}
    assert shapes == {"level_00": (125, 2), "level_01": (1024, 2), "level_02": (1024, 2)}
    for value in params.values():
        assert value.dtype == jnp.float32
        assert 0 < np.abs(value).max() <= 1e-4
