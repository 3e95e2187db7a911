"""Low-rank adapters of a UNet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.guidance import classifier_free
from dsd_jax.models import lora
from dsd_jax.priors import load_prior

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def prior(tiny_prior_folder, quick_compilation):
    return load_prior(str(tiny_prior_folder), jnp.float32)


@pytest.fixture(scope="module")
def adapter(prior):
    return prior.init_adapter(KEY, prior.params, 2)


def at(prior, params, x=None, views=1):
    """Its prediction for the text 0.1 and the camera 0.2 at t = 500."""
    shape = prior.latent_shape if views == 1 else (views, *prior.latent_shape)
    x = jax.random.normal(jax.random.key(1), shape) if x is None else x
    text = jnp.full((8, 16), 0.1)
    camera = jnp.full((16,) if views == 1 else (views, 16), 0.2)
    told, not_told = ({"text": part, "camera": camera} for part in (text, text * 0))
    return classifier_free(prior.network(params, views), told, not_told)(1.0)(x, 500)


def test_every_attention_projection_has_a_part(prior, adapter):
    """Three transformers (down, middle, up) and one more on the way up; 8 projections each."""
    leaves = jax.tree_util.tree_flatten_with_path(adapter)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    kernels = jax.tree_util.tree_flatten_with_path(prior.params["unet"])[0]
    kernels = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in kernels]
    expected = {n.removesuffix("/kernel") for n in kernels if "/to_" in n and "kernel" in n}
    assert {name[:-2] for name in names} == expected
    assert len(leaves) == 2 * len(expected) and len(expected) % 8 == 0


def test_at_the_start_it_is_the_prior(prior, adapter):
    np.testing.assert_array_equal(
        at(prior, prior.adapt(prior.params, adapter)), at(prior, prior.params)
    )


def test_merging_is_w_plus_a_b(prior, adapter):
    adapter = jax.tree.map(lambda leaf: leaf + 0.1, adapter)
    merged = prior.adapt(prior.params, adapter)["unet"]
    where = "mid_block", "attentions_0", "transformer_blocks_0", "attn2", "to_k"
    base, new, part = prior.params["unet"], merged, adapter
    for name in where:
        base, new, part = base[name], new[name], part[name]
    expected = np.asarray(base["kernel"]) + np.asarray(part["a"]) @ np.asarray(part["b"])
    np.testing.assert_allclose(new["kernel"], expected, rtol=1e-5, atol=1e-6)
    assert merged["conv_in"] is prior.params["unet"]["conv_in"]
    assert np.abs(at(prior, prior.adapt(prior.params, adapter)) - at(prior, prior.params)).max() > 0


def test_weights_keep_their_type(prior, adapter):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), prior.params["unet"])
    merged = lora.merge(half, adapter)
    assert {leaf.dtype for leaf in jax.tree.leaves(merged)} == {jnp.dtype(jnp.bfloat16)}


def test_size_of_what_is_merged(prior, adapter):
    before, after = prior.params["unet"], lora.merge(prior.params["unet"], adapter)
    new = [
        b.nbytes
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        if a is not b
    ]
    assert lora.merged_size(before) == sum(new)


def test_random_weights_are_the_keys(prior):
    one, same, other = (prior.init_adapter(jax.random.key(k), prior.params, 2) for k in (0, 0, 1))
    first = jax.tree.leaves(one)[0]
    np.testing.assert_array_equal(first, jax.tree.leaves(same)[0])
    assert np.abs(first - jax.tree.leaves(other)[0]).max() > 0
    draws = np.concatenate([np.ravel(leaf * np.sqrt(leaf.shape[0])) for leaf in jax.tree.leaves(one)
                            if leaf.any()])  # fmt: skip
    assert draws.std() == pytest.approx(1.0, rel=0.1)


def test_a_network_without_attention_is_refused():
    with pytest.raises(ValueError, match="the prior's UNet has no attention"):
        lora.init(KEY, {"conv_in": {"kernel": jnp.zeros((3, 3, 4, 8))}}, 2)
