"""Parts of a latent-diffusion checkpoint by themselves, for tests of their names and shapes."""

from pathlib import Path

import jax.numpy as jnp

from dsd_jax.models import keys
from dsd_jax.models.config import UNetConfig
from dsd_jax.models.ldm import _PREFIX, _PROJECTION, cc_projection_shapes, expected, unet_config
from dsd_jax.models.networks import unet_param_shapes
from dsd_jax.models.tensor_files import read_params
from dsd_jax.models.unet import UNet


def load_unet(file, config: dict, dtype=jnp.float32) -> tuple[UNetConfig, dict]:
    """Shape and parameters (NumPy arrays of `dtype`) of the UNet in a safetensors file.

    `config` is as in `unet_config`. Keys begin with `model.diffusion_model.`, whereupon all else
    in the file is some other part of the model and not read, or all belong to the UNet but
    `cc_projection`. Errors name tensors without the prefix.
    Raises as `unet_config` and `models.tensor_files.read_params` do.
    """
    shape = unet_config(config)
    places = expected(shape, unet_param_shapes(UNet(shape)))
    return shape, read_params(Path(file), places, _unet_names, jnp.dtype(dtype))


def _unet_names(stored: set[str]) -> dict[str, str]:
    """{key of the UNet: name in the file}."""
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in stored) else ""
    inside = (n for n in stored if n.startswith(prefix) and not n.startswith(_PROJECTION))
    return {name.removeprefix(prefix): name for name in inside}


def load_cc_projection(file, config: dict, dtype=jnp.float32) -> dict:
    """Zero-1-to-3's layer from image embedding and pose to context, from the same file.

    Returns {"kernel": [context_dim + 4, context_dim], "bias": [context_dim]}.
    Raises as `models.tensor_files.read_params` does.
    """
    places = keys.flatten(cc_projection_shapes(unet_config(config)), _PROJECTION)

    def names(stored):
        return {name: name for name in stored if name.startswith(_PROJECTION)}

    return read_params(Path(file), places, names, jnp.dtype(dtype))
