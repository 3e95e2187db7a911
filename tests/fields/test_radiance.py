"""The radiance field's blob, and normals of functions whose normals are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.fields.radiance import (
    RadianceField,
    analytic_normals,
    finite_difference_normals,
    truncated_exp,
)

CENTRE = np.array([0.1, -0.2, 0.3])


def gaussian(x):
    """A soft ball around CENTRE: normals point away from it."""
    density = 5 * jnp.exp(-4 * jnp.sum((x - CENTRE) ** 2, -1))
    return density, jnp.stack([density, 2 * density], -1)


def test_untrained_field_is_the_blob():
    """softplus(scale (1 - |x| / std)): with std 0.5, 10 at the centre, log 2 at |x| = 0.5."""
    field = RadianceField(levels=2, log2_entries=8, width=4)
    params = field.init(jax.random.key(0), jnp.zeros((1, 3)))["params"]
    x = jnp.array([[0.0, 0, 0], [0, 0.5, 0], [0, 0, -0.75]])
    density, albedo = field.apply({"params": params}, x)
    np.testing.assert_allclose(density, np.log1p(np.exp([10.0, 0, -5])), rtol=2e-3)
    np.testing.assert_allclose(albedo, 0.5, atol=1e-3)


def test_density_floor_is_taken_off():
    """The untrained blob with exp: e^(4 (1 - 2 |x|)); a floor of 2, half of it, and none."""
    x = jnp.array([[0.0, 0, 0], [0, 0.5, 0], [0, 0, -0.75]])
    field = RadianceField(
        levels=2, log2_entries=8, width=4, blob_scale=4.0, density_activation=truncated_exp,
        density_floor=2.0,
    )  # fmt: skip
    params = field.init(jax.random.key(0), x)
    plain = np.exp([4.0, 0, -2])
    for part, floor in ((None, 2.0), (0.5, 1.0), (0.0, 0.0)):
        settings = {} if part is None else {"floor_part": jnp.float32(part)}
        density, _ = field.apply(params, x, **settings)
        np.testing.assert_allclose(density, np.maximum(plain - floor, 0), rtol=5e-3, atol=5e-3)


def test_truncated_exp_stays_finite():
    x = jnp.array([-3.0, 0, 10, 100])
    np.testing.assert_allclose(truncated_exp(x), np.exp([-3.0, 0, 10, 15]), rtol=1e-5)
    assert np.all(np.isfinite(jax.vmap(jax.grad(truncated_exp))(x)))


@pytest.mark.parametrize(
    ("normals", "tolerance"), [(analytic_normals, 1e-5), (finite_difference_normals, 2e-2)]
)
def test_normals_of_a_soft_ball(normals, tolerance):
    x = jax.random.uniform(jax.random.key(0), (100, 3), minval=-1, maxval=1)
    density, features, n = jax.jit(lambda x: normals(gaussian, x))(x)
    outward = np.asarray(x) - CENTRE
    np.testing.assert_allclose(
        n, outward / np.linalg.norm(outward, axis=-1, keepdims=True), atol=tolerance
    )
    np.testing.assert_allclose(density, gaussian(x)[0], rtol=1e-5)
    np.testing.assert_allclose(features, gaussian(x)[1], rtol=1e-5)


@pytest.mark.parametrize("normals", [analytic_normals, finite_difference_normals])
def test_constant_density_has_no_normal_and_finite_gradients(normals):
    def loss(scale):
        def flat(x):
            return scale * jnp.ones(len(x)), x

        return jnp.sum(normals(flat, jnp.ones((4, 3)))[2] ** 2)

    value, slope = jax.value_and_grad(loss)(1.0)
    assert value == 0
    assert slope == 0
