"""The three networks of a Stable Diffusion folder together, and their initial parameters."""

from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dsd_jax.models.clip_text import ClipText
from dsd_jax.models.config import ClipTextConfig, UNetConfig, VAEConfig
from dsd_jax.models.unet import UNet
from dsd_jax.models.vae import AutoencoderKL

CAMERA_DIM = 16  # a camera-to-world matrix, as MVDream is told
_ZERO = ("conv2", "proj_out", "conv_out")


class Networks(NamedTuple):
    """Flax modules, named as the folders that hold their weights. Hashable."""

    unet: UNet
    vae: AutoencoderKL
    text_encoder: ClipText


def build(unet: dict, vae: dict, text_encoder: dict, dtype=jnp.float32) -> Networks:
    """The modules described by the three config.json dictionaries, computing in `dtype`.

    Raises ValueError for an unsupported entry, or for parts that do not go together.
    """
    configs = (
        UNetConfig.from_dict(unet),
        VAEConfig.from_dict(vae),
        ClipTextConfig.from_dict(text_encoder),
    )
    u, v, t = configs
    if u.cross_attention_dim != t.hidden_size:
        raise ValueError(
            f"the unet takes text of width {u.cross_attention_dim}, "
            f"the text encoder gives {t.hidden_size}"
        )
    if (u.in_channels, u.out_channels) != (v.latent_channels,) * 2:
        raise ValueError(
            f"the unet takes {u.in_channels} channels and predicts {u.out_channels}, the vae has "
            f"{v.latent_channels}: all three have to be the same (a UNet that takes more is "
            "told of a mask, a depth or a picture besides, which is not supported)"
        )
    if u.camera_dim not in (None, CAMERA_DIM):
        raise ValueError(f"unet config: camera_dim has to be {CAMERA_DIM}, not {u.camera_dim}")
    dtype = jnp.dtype(dtype)
    return Networks(
        UNet(configs[0], dtype), AutoencoderKL(configs[1], dtype), ClipText(configs[2], dtype)
    )


def param_shapes(networks: Networks) -> dict:
    """A jax.ShapeDtypeStruct for each parameter, {"unet": ..., "vae": ..., "text_encoder": ...}."""
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return {
        "unet": unet_param_shapes(networks.unet),
        "vae": vae_param_shapes(networks.vae),
        "text_encoder": _shapes(networks.text_encoder, ids),
    }


def unet_param_shapes(unet: UNet) -> dict:
    """A jax.ShapeDtypeStruct for each parameter of a UNet."""
    c = unet.config
    h = 2 ** (len(c.block_out_channels) - 1)
    x, text = _array(1, h, h, c.in_channels), _array(1, 1, c.cross_attention_dim)
    camera = None if c.camera_dim is None else _array(1, c.camera_dim)
    return _shapes(unet, x, _array(1), text, camera)


def vae_param_shapes(vae: AutoencoderKL) -> dict:
    """A jax.ShapeDtypeStruct for each parameter of an autoencoder."""
    v = vae.config
    return _shapes(vae, _array(1, v.factor, v.factor, v.in_channels))


def _array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _shapes(module, *args) -> dict:
    return jax.eval_shape(module.init, jax.random.key(0), *args)["params"]


@partial(jax.jit, static_argnums=(0, 2))
def init_params(networks, key, shapes_of: Callable[..., dict] = param_shapes) -> dict:
    """Random float32 parameters to train from, in the tree of `shapes_of(networks)`.

    Kernels have variance 1 / fan-in; embeddings CLIP's 0.02 (tokens) and 0.01 (positions); biases
    are 0 and scales 1. Layers of the UNet that end a branch are 0, so that it starts predicting 0.
    One draw serves all: a draw for each parameter takes half a minute to compile.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes_of(networks))
    sizes = [leaf.size for _, leaf in leaves]
    parts = jnp.split(jax.random.normal(key, (sum(sizes),)), list(accumulate(sizes))[:-1])
    values = [
        _initial(tuple(entry.key for entry in path), part.reshape(leaf.shape))
        for (path, leaf), part in zip(leaves, parts, strict=True)
    ]
    return jax.tree.unflatten(tree, values)


def _initial(path, normal):
    """Starting value of the parameter at `path`, from standard normal numbers of its shape."""
    layer, leaf = path[-2:]
    if leaf == "embedding":
        return {"token_embedding": 0.02, "position_embedding": 0.01}[layer] * normal
    if leaf == "bias" or (path[0] == "unet" and layer in _ZERO):
        return jnp.zeros_like(normal)
    if leaf == "scale":
        return jnp.ones_like(normal)
    return normal * (normal.size // normal.shape[-1]) ** -0.5


def count(params) -> int:
    """Number of scalars in a tree of arrays or ShapeDtypeStructs."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
