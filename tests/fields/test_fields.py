"""What every field must do, whatever it is made of."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.fields.radiance import RadianceField, truncated_exp

SMALL = {"levels": 3, "log2_entries": 10, "base_resolution": 4, "width": 8}
FIELDS = {
    "softplus": RadianceField(**SMALL),
    "exponential": RadianceField(**SMALL, blob_scale=3.0, density_activation=truncated_exp),
    "deep, five features": RadianceField(**SMALL, hidden_layers=2, outputs=5),
    "no blob": RadianceField(**SMALL, blob_scale=0.0),
    "one level of four features": RadianceField(levels=1, features=4, log2_entries=8, width=8),
}


@pytest.fixture(params=FIELDS.values(), ids=FIELDS.keys())
def field(request):
    return request.param


def points(seed=0, n=50):
    return jax.random.uniform(jax.random.key(seed), (n, 3), minval=-1, maxval=1)


@partial(jax.jit, static_argnums=0)
def apply(field, params, x, open_levels=None):
    return field.apply({"params": params}, x, open_levels=open_levels)


def init(field, seed=0):
    params = field.init(jax.random.key(seed), jnp.zeros((1, 3)))["params"]
    noise = jax.tree.map(
        lambda p: jax.random.normal(jax.random.key(1), p.shape), params["HashGrid_0"]
    )
    return params | {"HashGrid_0": noise}


def test_shapes_ranges_and_types(field):
    density, features = apply(field, init(field), points())
    assert density.shape == (50,)
    assert features.shape == (50, field.outputs)
    assert density.dtype == features.dtype == jnp.float32
    assert np.all(density >= 0)
    assert np.all((features > 0) & (features < 1))


def test_parameters_are_float32(field):
    params = field.init(jax.random.key(0), jnp.zeros((1, 3)))["params"]
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_density_is_zero_outside_the_ball(field):
    x = points(n=400)
    density, _ = apply(field, init(field), x)
    outside = np.linalg.norm(x, axis=-1) > 1
    assert outside.sum() > 100
    assert not np.any(density[outside])
    assert np.all(density[~outside] > 0)


def test_points_are_independent(field):
    x = points()
    params = init(field)
    whole = apply(field, params, x)
    part = apply(field, params, x[10:20])
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_allclose(a[10:20], b, rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_at_the_origin_and_on_the_border(field):
    x = jnp.array([[0.0, 0, 0], [1, 0, 0], [-1, 1, 1], [0.2, 0.3, -0.1]])

    @jax.jit
    def loss(params, x):
        density, features = field.apply({"params": params}, x)
        return jnp.sum(density) + jnp.sum(features)

    for leaf in jax.tree.leaves(jax.grad(loss, (0, 1))(init(field), x)):
        assert np.all(np.isfinite(leaf))


def test_vmap_over_seeds_is_a_loop(field):
    params = [init(field, s) for s in range(3)]
    x = jnp.stack([points(s) for s in range(3)])
    stacked = jax.tree.map(lambda *p: jnp.stack(p), *params)
    together = jax.vmap(partial(apply, field))(stacked, x)
    for s in range(3):
        alone = apply(field, params[s], x[s])
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[s], b, rtol=1e-5, atol=1e-6)


def test_open_levels_may_be_traced(field):
    params, x = init(field), points()
    run = partial(apply, field, params, x)
    np.testing.assert_allclose(run(float(field.levels))[0], apply(field, params, x)[0], rtol=1e-5)
    assert np.abs(run(0.5)[0] - run(1.0)[0]).max() > 1e-4
