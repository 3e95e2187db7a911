"""Text encoder, UNet and VAE of the folder DSD_GOLDEN against what PyTorch computed there."""

import authors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models.weights import load_pipeline

pytestmark = authors.needs_folder


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(authors.FOLDER / "tiny_sd")


@pytest.fixture(scope="module")
def golden():
    """The reference arrays, NHWC."""
    arrays = np.load(authors.FOLDER / "tiny_sd_reference.npz")
    return {k: np.moveaxis(a, 1, -1) if (a := arrays[k]).ndim == 4 else a for k in arrays}


def check(found, expected):
    error = np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected)
    assert error < 1e-5


def apply(pipeline, part, *args, **kwargs):
    module = getattr(pipeline.networks, part)
    return jax.jit(lambda p, *a: module.apply({"params": p}, *a, **kwargs))(
        pipeline.params[part], *args
    )


def test_text_encoder(pipeline, golden):
    check(apply(pipeline, "text_encoder", jnp.asarray(golden["input_ids"])), golden["text"])


def test_unet(pipeline, golden):
    inputs = (jnp.asarray(golden[name]) for name in ("x", "timesteps", "text"))
    check(apply(pipeline, "unet", *inputs), golden["unet"])


def test_vae_encoder(pipeline, golden):
    mean, logvar = apply(pipeline, "vae", jnp.asarray(golden["image"]), method="encode")
    check(mean, golden["latent_mean"])
    check(logvar, golden["latent_logvar"])


def test_vae_decoder(pipeline, golden):
    check(apply(pipeline, "vae", jnp.asarray(golden["z"]), method="decode"), golden["decoded"])
