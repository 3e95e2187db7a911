"""UNets of MVDream and Zero-1-to-3 on miniatures that their authors' code computed.

Each is NAME.json (configuration), NAME.safetensors (weights) and NAME.npz (inputs and eps, NCHW)
in the folder that the environment variable DSD_GOLDEN names; too large to be kept here.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ldm_files import load_cc_projection, load_unet

from dsd_jax.models.unet import UNet
from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.models.zero123 import ImageNetworks
from dsd_jax.priors.zero123 import ImageConditioning, Prior, pose_vector, project
from dsd_jax.schedule import NoiseSchedule

FOLDER = os.environ.get("DSD_GOLDEN")
pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.skipif(
        not FOLDER, reason="DSD_GOLDEN does not name the folder of mvdream_tiny and zero123_tiny"
    ),
]


def relative(found, expected):
    return np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected)


def miniature(name):
    """(file of weights, configuration, arrays: NHWC)."""
    stem = Path(FOLDER) / name
    arrays = np.load(f"{stem}.npz")
    arrays = {k: np.moveaxis(a, 1, -1) if (a := arrays[k]).ndim == 4 else a for k in arrays}
    return f"{stem}.safetensors", json.loads(Path(f"{stem}.json").read_text()), arrays


@pytest.mark.parametrize("eps", ["eps_multiview", "eps_no_camera"])
def test_mvdream(eps):
    file, config, arrays = miniature("mvdream_tiny")
    shape, params = load_unet(file, config)
    multiview = eps == "eps_multiview"
    camera, num_views = (arrays["camera"], 4) if multiview else (None, 1)
    inputs = (arrays[name] for name in ("x", "timesteps", "context"))
    found = jax.jit(UNet(shape).apply, static_argnums=5)(
        {"params": params}, *inputs, camera, num_views
    )
    assert relative(found, arrays[eps]) < 1e-5


@pytest.fixture(scope="module")
def zero123():
    """The miniature as a prior, without VAE and image encoder, and its arrays."""
    file, config, arrays = miniature("zero123_tiny")
    shape, unet = load_unet(file, config)
    params = {"unet": unet, "cc_projection": load_cc_projection(file, config)}
    networks: Any = ImageNetworks(UNet(shape), None, None)  # pyright: ignore[reportArgumentType]
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)
    return Prior(params, schedule, networks, Path()), arrays


@pytest.mark.parametrize(
    ("scale", "weights"), [(1.0, (1, 0)), (0.0, (0, 1)), (3.0, (3, -2))], ids=["text", "zeros", "3"]
)
def test_zero123(zero123, scale, weights):
    """The denoiser at guidance 1 and 0 is conditional and unconditional, at 3 their combination."""
    prior, arrays = zero123
    polar, azimuth = (np.radians(arrays[f"delta_{name}_deg"]) for name in ("polar", "azimuth"))
    pose = pose_vector(polar, azimuth, arrays["delta_radius"])
    context = project(prior.params["cc_projection"], arrays["image_embedding"], pose)
    assert relative(context, arrays["context"]) < 1e-6

    @jax.jit
    def denoise(params, x, t, embedding, latent, pose):
        image = ImageConditioning(embedding, latent)
        return prior.denoiser_at_pose(params, image, pose)(scale)(x, t)

    names = ("x", "timesteps", "image_embedding", "image_latent")
    inputs = [jnp.asarray(arrays[name]) for name in names]
    found = jax.vmap(denoise, (None, 0, 0, 0, 0, 0))(prior.params, *inputs, pose)
    expected = weights[0] * arrays["eps_conditional"] + weights[1] * arrays["eps_unconditional"]
    assert relative(found, expected) < 1e-5
