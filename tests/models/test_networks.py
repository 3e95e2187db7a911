"""networks.py: building and starting from random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models.networks import build, count, init_params, param_shapes


@pytest.fixture(scope="module")
def started(networks):
    return init_params(networks, jax.random.key(0))


def test_init_has_the_shapes_announced(networks, started):
    shapes = param_shapes(networks)
    assert jax.tree.structure(shapes) == jax.tree.structure(started)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, shapes, started))
    assert {leaf.dtype for leaf in jax.tree.leaves(started)} == {jnp.dtype("float32")}
    assert "camera_embedding" in started["unet"]


def test_init_is_a_function_of_the_key(networks, started):
    again = init_params(networks, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, again, started)
    other = init_params(networks, jax.random.key(1))["vae"]["encoder"]["conv_in"]["kernel"]
    assert jnp.abs(other - started["vae"]["encoder"]["conv_in"]["kernel"]).max() > 0


def test_a_new_unet_predicts_zero(networks, started):
    x, text = jnp.ones((1, 8, 8, 4)), jnp.ones((1, 2, 24))
    out = jax.jit(networks.unet.apply)({"params": started["unet"]}, x, jnp.ones(1), text)
    assert (out == 0).all()


def test_initial_spread(started):
    """Kernels keep the variance of their input: standard deviation 1 / sqrt(fan-in)."""
    conv = started["vae"]["decoder"]["mid_block"]["resnets_0"]["conv1"]["kernel"]
    dense = started["unet"]["time_embedding"]["linear_2"]["kernel"]
    tokens = started["text_encoder"]["embeddings"]["token_embedding"]["embedding"]
    for array, spread in [(conv, (9 * 64) ** -0.5), (dense, 128**-0.5), (tokens, 0.02)]:
        assert float(array.std()) == pytest.approx(spread, rel=0.1)
    assert (started["vae"]["encoder"]["conv_norm_out"]["scale"] == 1).all()


def test_known_sizes(configs):
    """A Toybox-like UNet; the golden one of 792,964 parameters is checked key by key elsewhere."""
    unet = {
        **configs["unet"],
        "block_out_channels": [64, 128, 160],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3,
        "up_block_types": ["CrossAttnUpBlock2D"] * 3,
        "attention_head_dim": [2, 4, 5],
        "cross_attention_dim": 192,
    }
    text = {**configs["text_encoder"], "hidden_size": 192, "intermediate_size": 768}
    shapes = param_shapes(build(unet, configs["vae"], text))
    assert count(shapes["unet"]) == 9_134_756
    camera = count(shapes["unet"]["camera_embedding"])
    assert camera == (16 + 1) * 256 + (256 + 1) * 256


def test_text_width_must_fit(configs):
    text = {**configs["text_encoder"], "hidden_size": 48}
    with pytest.raises(ValueError, match="takes text of width 24, the text encoder gives 48"):
        build(configs["unet"], configs["vae"], text)
