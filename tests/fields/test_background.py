"""Backgrounds start as their plain colour and can be learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.fields.background import (
    DirectionalBackground,
    LearnedColour,
    constant_background,
    random_colour,
)


def directions(n=30):
    d = jax.random.normal(jax.random.key(0), (n, 3))
    return d / jnp.linalg.norm(d, axis=-1, keepdims=True)


def test_constant_is_a_grey_or_a_colour():
    np.testing.assert_allclose(constant_background(0.8)(directions()), 0.8)
    np.testing.assert_allclose(constant_background([1.0, 0, 0.5])(directions())[7], [1, 0, 0.5])


def test_random_colours_are_uniform_and_grey_half_of_the_time():
    colours = np.asarray(jax.vmap(random_colour)(jax.random.split(jax.random.key(0), 2000)))
    grey = (colours == colours[:, :1]).all(1)
    assert 0.45 < grey.mean() < 0.55
    for group in (colours[grey], colours[~grey]):
        assert group.min() >= 0 and group.max() < 1
        np.testing.assert_allclose(group.mean(0), 0.5, atol=0.05)
        np.testing.assert_allclose(group.var(0), 1 / 12, rtol=0.1)


@pytest.mark.parametrize("module", [LearnedColour(0.3), DirectionalBackground(0.3)])
def test_starts_plain_and_learns_a_target(module):
    d = directions()
    target = jnp.array([0.9, 0.2, 0.5])
    if isinstance(module, DirectionalBackground):
        target = jnp.where(d[:, 1:2] > 0, target, 0.1)
    params = module.init(jax.random.key(1), d)["params"]
    np.testing.assert_allclose(module.apply({"params": params}, d), 0.3, rtol=1e-5)

    @jax.jit
    def step(params):
        def loss(params):
            return jnp.mean((module.apply({"params": params}, d) - target) ** 2)

        value, slope = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 2 * g, params, slope), value

    first = step(params)[1]
    for _ in range(200):
        params, last = step(params)
    assert last < 0.1 * first
