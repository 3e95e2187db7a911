"""diffusers' Flax pipeline handed in as a prior, against the same weights read from the folder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.guidance import classifier_free
from dsd_jax.priors.stable_diffusion import from_flax_pipeline, load

pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def folder(tiny_sd, tmp_path_factory):
    """tiny_sd as diffusers writes it, with PyTorch's own files beside safetensors.

    For images of 64 pixels, since diffusers runs its Flax networks while it loads them.
    """
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    pipeline.unet.register_to_config(sample_size=8)
    pipeline.vae.register_to_config(sample_size=64)
    for safe in (True, False):
        pipeline.save_pretrained(folder, safe_serialization=safe)
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    """(pipeline, params) of diffusers."""
    return diffusers.FlaxStableDiffusionPipeline.from_pretrained(
        folder, from_pt=True, safety_checker=None, feature_extractor=None
    )


@pytest.fixture(scope="module")
def handed_in(theirs):
    return from_flax_pipeline(*theirs)


@pytest.fixture(scope="module")
def read(folder):
    return load(folder)


def test_networks_and_weights_are_those_of_the_folder(handed_in, read):
    for ours, expected in zip(handed_in.networks, read.networks, strict=True):
        assert ours.config == expected.config and ours.dtype == expected.dtype
    jax.tree.map(np.testing.assert_array_equal, handed_in.params, read.params)
    np.testing.assert_array_equal(handed_in.schedule.alphas_cumprod, read.schedule.alphas_cumprod)
    assert handed_in.schedule.prediction_type == read.schedule.prediction_type


def test_eps_is_that_of_the_folder(handed_in, read):
    """From prompts on, each with its own tokenizer."""
    x = np.random.default_rng(0).normal(size=(8, 8, 4)).astype(np.float32)

    @jax.jit
    def eps(prior, text):
        told, not_told = ({"text": part} for part in text)
        return classifier_free(prior.network(prior.params), told, not_told)(7.5)(x, 500)

    text = [prior.encode_prompt(prior.params, ["a red house", ""]) for prior in (handed_in, read)]
    ours, expected = eps(handed_in, text[0]), eps(read, text[1])
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_eps_is_that_of_the_flax_pipeline(theirs, handed_in):
    """Only nearly: diffusers' Flax UNet has GELU by its tanh formula and an epsilon of 1e-5."""
    pipeline, params = theirs
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
    t, text = jnp.array([100, 900]), rng.normal(size=(2, 7, 32)).astype(np.float32)

    @jax.jit
    def flax(params):
        return pipeline.unet.apply({"params": params}, jnp.moveaxis(x, -1, 1), t, text).sample

    expected = np.moveaxis(np.asarray(flax(params["unet"])), 1, -1)
    found = jax.jit(lambda p: handed_in.network(p)(x, t, {"text": text}))(handed_in.params)
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
