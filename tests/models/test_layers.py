"""layers.py against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models.layers import Downsample, GroupNorm, Upsample, timestep_features


def normalised(x, groups, epsilon):
    x = np.asarray(x, np.float64)
    grouped = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean, var = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    return ((grouped - mean) / np.sqrt(var + epsilon)).reshape(x.shape)


@pytest.mark.parametrize("shape", [(2, 6, 4, 8), (3, 5, 8)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_group_norm_keeps_its_digits_under_a_large_mean(shape, offset):
    x = jax.random.normal(jax.random.key(0), shape) + offset
    scale, bias = np.arange(1.0, 9.0), np.arange(8.0)
    params = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}
    out = GroupNorm(4, 1e-5).apply({"params": params}, x)
    np.testing.assert_allclose(out, normalised(x, 4, 1e-5) * scale + bias, rtol=1e-4, atol=1e-4)


def test_group_norm_has_float32_statistics_in_half_precision():
    x = (100 + jax.random.normal(jax.random.key(0), (1, 64, 64, 4))).astype(jnp.bfloat16)
    params = {"scale": jnp.ones(4, jnp.bfloat16), "bias": jnp.zeros(4, jnp.bfloat16)}
    out = GroupNorm(2, 1e-6, jnp.bfloat16).apply({"params": params}, x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), normalised(x, 2, 1e-6), atol=0.02)


def test_group_norm_gradient_is_that_of_the_formula():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 4))
    weight = jax.random.normal(jax.random.key(1), x.shape)
    params = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
    grad = jax.grad(lambda x: jnp.sum(weight * GroupNorm(2, 1e-5).apply({"params": params}, x)))(x)
    numeric = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[place] = 1e-5
        plus, minus = (normalised(np.float64(x) + s * step, 2, 1e-5) for s in (1, -1))
        numeric[place] = np.sum(weight * (plus - minus)) / 2e-5
    np.testing.assert_allclose(grad, numeric, rtol=1e-4, atol=1e-5)


def test_timestep_features_by_hand():
    out = timestep_features(jnp.array([0, 7]), 4, flip_sin_to_cos=True, freq_shift=0)
    expected = [[1, 1, 0, 0], [np.cos(7), np.cos(0.07), np.sin(7), np.sin(0.07)]]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-7)
    out = timestep_features(jnp.array([7]), 4, flip_sin_to_cos=False, freq_shift=1)
    expected = [[np.sin(7), np.sin(0.0007), np.cos(7), np.cos(0.0007)]]
    np.testing.assert_allclose(out, expected, rtol=1e-5)


def test_resampling_by_hand():
    """A kernel that picks its centre shows which pixels a resampling reads."""
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    centre = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
    params = {"params": {"conv": {"kernel": centre, "bias": jnp.zeros(1)}}}
    even = Downsample((1, 1)).apply(params, x)[0, :, :, 0]
    odd = Downsample((0, 1)).apply(params, x)[0, :, :, 0]
    np.testing.assert_array_equal(even, [[0, 2], [8, 10]])
    np.testing.assert_array_equal(odd, [[5, 7], [13, 15]])
    double = Upsample().apply(params, even[None, :, :, None])[0, :, :, 0]
    np.testing.assert_array_equal(double, np.repeat(np.repeat(even, 2, 0), 2, 1))
