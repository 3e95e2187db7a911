"""vae.py beyond the golden values: gradient, sizes, refusals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def encode(networks, params, x):
    return networks.vae.apply({"params": params["vae"]}, x, method="encode")


def test_encode_and_decode_sizes(networks, params):
    x = jax.random.uniform(jax.random.key(0), (2, 8, 12, 3), minval=-1)
    mean, logvar = jax.jit(lambda x: encode(networks, params, x))(x)
    assert mean.shape == logvar.shape == (2, 4, 6, 4)
    decoded = jax.eval_shape(
        lambda z: networks.vae.apply({"params": params["vae"]}, z, method="decode"), mean
    )
    assert decoded.shape == x.shape


def test_gradient_to_the_image(networks, params):
    """Directional derivative against a central difference."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, direction = (jax.random.normal(k, (1, 8, 8, 3)) for k in keys[:2])
    weight = jax.random.normal(keys[2], (1, 4, 4, 4))
    loss = jax.jit(lambda x: jnp.sum(weight * encode(networks, params, x)[0]))
    slope = jnp.vdot(jax.jit(jax.grad(loss))(x), direction)
    numeric = (loss(x + 1e-2 * direction) - loss(x - 1e-2 * direction)) / 2e-2
    np.testing.assert_allclose(slope, numeric, rtol=1e-2)


def test_logvar_is_bounded(networks, params):
    bias = jnp.full(8, 100.0)
    quant = {**params["vae"]["quant_conv"], "bias": bias}
    raised = {"vae": {**params["vae"], "quant_conv": quant}}
    mean, logvar = jax.jit(partial(encode, networks))(raised, jnp.zeros((1, 4, 4, 3)))
    assert (logvar == 20).all() and (mean > 50).all()


@pytest.mark.parametrize("shape", [(1, 9, 8, 3), (1, 8, 8, 4), (8, 8, 3)])
def test_wrong_images_are_refused(networks, params, shape):
    with pytest.raises(ValueError, match=r"\[b, H, W, 3\] with H and W multiples of 2"):
        encode(networks, params, jnp.zeros(shape))
