"""The networks of a model with random weights, and their work. Letters: b batch."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from dsd_jax.models.architectures import ARCHITECTURES
from dsd_jax.models.networks import build, unet_param_shapes, vae_param_shapes
from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER, read_networks, read_scheduler
from dsd_jax.priors import EMBEDDED
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.schedule import NoiseSchedule

from .work import Ready, normal, program


def load(model: str, dtype) -> Prior:
    """The model's networks with random weights; no text encoder."""
    if model == "toybox":
        folder = EMBEDDED[model]
        networks, scheduler = read_networks(folder, dtype), read_scheduler(folder)
    else:
        networks = build(*ARCHITECTURES[model], dtype=dtype)
        scheduler = STABLE_DIFFUSION_SCHEDULER
    shapes = {"unet": unet_param_shapes(networks.unet), "vae": vae_param_shapes(networks.vae)}
    params = random_weights(shapes, dtype)
    return Prior(params, NoiseSchedule.from_config(scheduler), networks, Path())


def configs(model: str) -> tuple[dict, dict, int]:
    """config.json of the UNet and of the autoencoder, and the length of the text."""
    if model != "toybox":
        unet, vae, text = ARCHITECTURES[model]
    else:
        parts = ("unet", "vae", "text_encoder")
        files = [EMBEDDED[model] / part / "config.json" for part in parts]
        unet, vae, text = (json.loads(file.read_text("utf-8")) for file in files)
    return unet, vae, text["max_position_embeddings"]


def random_weights(shapes: dict, dtype) -> dict:
    """Kernels of variance 1 / fan-in that begin with the same numbers, which compiles at once."""
    most = max(leaf.size for leaf in jax.tree.leaves(shapes))

    def leaf(path, shape, numbers):
        if path[-1].key in ("bias", "scale"):
            return jnp.full(shape.shape, path[-1].key == "scale", dtype)
        kernel = numbers[: shape.size].reshape(shape.shape)
        return (kernel * (shape.size // shape.shape[-1]) ** -0.5).astype(dtype)

    def draw(key):
        numbers = jax.random.normal(key, (most,))
        return jax.tree_util.tree_map_with_path(partial(leaf, numbers=numbers), shapes)

    return jax.jit(draw)(jax.random.key(0))


def unet(prior: Prior, b: int) -> Ready:
    """A prediction for b samples."""
    module, config = prior.networks.unet, prior.networks.unet.config
    text = prior.networks.text_encoder.config.max_position_embeddings, config.cross_attention_dim
    side = config.sample_size
    camera = None if config.camera_dim is None else normal(2, (b, config.camera_dim))
    x, t = normal(0, (b, side, side, config.in_channels)), jnp.full(b, 500)

    def forward(params, *inputs):
        return module.apply({"params": params}, *inputs)

    return program(forward, prior.params["unet"], x, t, normal(1, (b, *text)), camera)


def vae(prior: Prior, b: int, pulled: bool) -> Ready:
    """The means of b pictures; `pulled`: and the gradient of the pictures."""

    def encode(params, x) -> Any:
        return prior.networks.vae.apply({"params": params}, x, method="encode")[0]  # pyright: ignore

    def both(params, x, cotangent):
        mean, pull_back = jax.vjp(partial(encode, params), x)
        return mean, pull_back(cotangent)[0]

    channels = prior.networks.vae.config.in_channels
    x = jnp.tanh(normal(0, (b, prior.image_size, prior.image_size, channels)))
    params, latents = prior.params["vae"], (b, *prior.latent_shape)
    if not pulled:
        return program(encode, params, x)
    return program(both, params, x, normal(1, latents, prior.networks.vae.dtype))
