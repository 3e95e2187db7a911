"""UNets of MVDream and Zero-1-to-3 on miniatures that their authors' code computed.

Each is NAME.json (configuration), NAME.safetensors (weights) and NAME.npz (inputs and eps, NCHW)
in the folder that the environment variable DSD_GOLDEN names; too large to be kept here.
"""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models.ldm import load_cc_projection, load_unet
from dsd_jax.models.unet import UNet
from dsd_jax.priors.zero123 import pose_vector, project

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


@pytest.mark.parametrize("eps", ["eps_conditional", "eps_unconditional"])
def test_zero123(eps):
    file, config, arrays = miniature("zero123_tiny")
    shape, params = load_unet(file, config)
    polar, azimuth = (np.radians(arrays[f"delta_{name}_deg"]) for name in ("polar", "azimuth"))
    pose = pose_vector(polar, azimuth, arrays["delta_radius"])
    context = project(load_cc_projection(file, config), arrays["image_embedding"], pose)
    assert relative(context, arrays["context"]) < 1e-6
    latent = arrays["image_latent"]
    if eps == "eps_unconditional":
        latent, context = np.zeros_like(latent), np.zeros_like(context)
    x = jnp.concatenate([arrays["x"], latent], -1)
    found = jax.jit(UNet(shape).apply)({"params": params}, x, arrays["timesteps"], context)
    assert relative(found, arrays[eps]) < 1e-5
