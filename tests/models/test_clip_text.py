"""clip_text.py beyond the golden values: causality, the penultimate layer, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="module")
def encode(networks, params):
    apply = jax.jit(networks.text_encoder.apply, static_argnums=2)
    return lambda ids, penultimate=False: apply(
        {"params": params["text_encoder"]}, jnp.asarray(ids), penultimate
    )


def test_a_token_sees_only_what_comes_before(encode):
    a, b = encode([[1, 2, 3, 4]]), encode([[1, 2, 9, 4]])
    np.testing.assert_array_equal(a[:, :2], b[:, :2])
    assert (jnp.abs(a - b)[0, 2:].max(-1) > 1e-3).all()


def test_penultimate_leaves_out_the_last_layer(networks, params, encode):
    from dataclasses import replace

    ids = [[1, 2, 3]]
    text = networks.text_encoder
    short = text.clone(config=replace(text.config, num_hidden_layers=1))
    expected = jax.jit(short.apply)({"params": params["text_encoder"]}, jnp.asarray(ids))
    np.testing.assert_allclose(encode(ids, True), expected, rtol=1e-6)
    assert jnp.abs(encode(ids) - expected).max() > 1e-3


def test_too_many_tokens_are_refused(encode):
    with pytest.raises(ValueError, match="l at most 8"):
        encode(np.zeros((1, 9), int))
