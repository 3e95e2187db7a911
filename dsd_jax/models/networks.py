"""The three networks of a Stable Diffusion folder together, and their initial parameters."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dsd_jax.models.clip_text import ClipText
from dsd_jax.models.config import ClipTextConfig, UNetConfig, VAEConfig
from dsd_jax.models.unet import UNet
from dsd_jax.models.vae import AutoencoderKL


class Networks(NamedTuple):
    """Flax modules, named as the folders that hold their weights. Hashable."""

    unet: UNet
    vae: AutoencoderKL
    text_encoder: ClipText


def build(unet: dict, vae: dict, text_encoder: dict, dtype=jnp.float32) -> Networks:
    """The modules described by the three config.json dictionaries, computing in `dtype`.

    Raises ValueError for an unsupported entry, or a text width the UNet does not take.
    """
    configs = (
        UNetConfig.from_dict(unet),
        VAEConfig.from_dict(vae),
        ClipTextConfig.from_dict(text_encoder),
    )
    if configs[0].cross_attention_dim != configs[2].hidden_size:
        raise ValueError(
            f"the unet takes text of width {configs[0].cross_attention_dim}, "
            f"the text encoder gives {configs[2].hidden_size}"
        )
    dtype = jnp.dtype(dtype)
    return Networks(
        UNet(configs[0], dtype), AutoencoderKL(configs[1], dtype), ClipText(configs[2], dtype)
    )


def _init(networks: Networks, key) -> dict:
    keys = jax.random.split(key, 3)
    u, v = networks.unet.config, networks.vae.config
    h = 2 ** (len(u.block_out_channels) - 1)
    x = jnp.zeros((1, h, h, u.in_channels))
    text = jnp.zeros((1, 1, u.cross_attention_dim))
    camera = None if u.camera_dim is None else jnp.zeros((1, u.camera_dim))
    image = jnp.zeros((1, v.factor, v.factor, v.in_channels))
    ids = jnp.zeros((1, 1), jnp.int32)
    return {
        "unet": networks.unet.init(keys[0], x, jnp.zeros(1), text, camera)["params"],
        "vae": networks.vae.init(keys[1], image)["params"],
        "text_encoder": networks.text_encoder.init(keys[2], ids)["params"],
    }


@partial(jax.jit, static_argnums=0)
def init_params(networks: Networks, key) -> dict:
    """Random float32 parameters {"unet": ..., "vae": ..., "text_encoder": ...}, jitted."""
    return _init(networks, key)


def param_shapes(networks: Networks) -> dict:
    """The tree of `init_params` with a jax.ShapeDtypeStruct for each leaf; computes nothing."""
    return jax.eval_shape(partial(_init, networks), jax.random.key(0))


def count(params) -> int:
    """Number of scalars in a tree of arrays or ShapeDtypeStructs."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
