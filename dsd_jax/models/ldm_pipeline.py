"""A whole checkpoint of the latent-diffusion code, such as MVDream's, in one safetensors file.

    model.safetensors
        model.diffusion_model.    the UNet, named as in `ldm`
        first_stage_model.        the VAE, and
        cond_stage_model.         the encoder of the prompt or the image, named as in `ldm_names`
        cc_projection.            Zero-1-to-3's layer from image embedding and pose to the UNet
    model.json                    what the networks look like (`ldm_config`); not for known models
    tokenizer/                    that of a diffusers folder of the same family (read by `priors`)

Models that use OpenCLIP take the hidden states before its last block, normalised. As in diffusers'
folders the encoder has one layer fewer for that; the last block has to be there but is not read.
Zero-1-to-3 is sampled with the moving averages of the UNet's weights (`ema_scope` in its
gradio_new.py, `model_ema.copy_to` in threestudio's guidance): a file that has them is read so.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from dsd_jax.models import keys, ldm
from dsd_jax.models.config import UNetConfig
from dsd_jax.models.ldm_config import read_config, scheduler_config, text_encoder_config, vae_config
from dsd_jax.models.ldm_names import ENCODERS, UNET, VAE, cut, encoder_key, uncut, vae_key
from dsd_jax.models.networks import Networks, build, param_shapes
from dsd_jax.models.tensor_files import read_params
from dsd_jax.models.weights import Pipeline

# Tensors that belong to training or to sampling.
_IGNORED = (
    r"betas|alphas_cumprod(_prev)?|lvlb_weights|(sqrt_|log_one_minus_|posterior_)\w+|model_ema\..+"
)
# {kind of encoder: what is left of CLIP's other half}
_LEFT_OVER = {
    "clip": r"cond_stage_model\.transformer\.text_model\.embeddings\.position_ids",
    "openclip": r"cond_stage_model\.model\.(text_projection|logit_scale|attn_mask)",
    "image": r"cond_stage_model\.(mean|std|model\.(positional_embedding|text_projection"
    r"|logit_scale|token_embedding\.weight|ln_final\.(weight|bias)))",
}


def load_single_file(
    file, dtype=jnp.float32, param_dtype=None, config: dict | None = None
) -> Pipeline:
    """Reads a checkpoint; parameters are NumPy arrays of `param_dtype` (default `dtype`).

    `dtype` is the type the networks compute in, `config` what `read_config` gives, if at hand.
    Raises FileNotFoundError if the file is missing, or the JSON file for a model that is not known;
    ValueError for one that cannot be read, for an entry of the JSON file that is missing or not
    supported, and for the first tensor that is missing, misshapen or too many.
    """
    file = Path(file)
    config = read_config(file) if config is None else config
    if "text_encoder" not in config:
        raise ValueError(f"{file} takes an image, not a prompt: read it by priors.load_prior")
    return Pipeline(*read_parts(file, config, build_networks, param_shapes, dtype, param_dtype))


def read_parts(
    file: Path, config: dict, build_networks: Callable, param_shapes: Callable, dtype, param_dtype
) -> tuple[Any, dict, dict]:
    """(networks, params, scheduler) of a file that `config` describes.

    Args:
        build_networks: (config, dtype) -> networks.
        param_shapes: networks -> a jax.ShapeDtypeStruct for each parameter.
    """
    try:
        scheduler, networks = scheduler_config(config["scheduler"]), build_networks(config, dtype)
    except ValueError as error:
        raise ValueError(f"{file.with_suffix('.json')}: {error}") from None
    param_dtype = jnp.dtype(dtype if param_dtype is None else param_dtype)
    shapes, unet = param_shapes(networks), networks.unet.config
    return networks, read_tensors(file, config, unet, shapes, param_dtype), scheduler


def build_networks(config: dict, dtype=jnp.float32) -> Networks:
    """The networks that a JSON file describes. Raises ValueError for an unsupported entry."""
    unet = ldm.unet_config(config["unet"]).to_dict()
    text_encoder = text_encoder_config(config["text_encoder"])
    return build(unet, vae_config(config["vae"]), text_encoder, dtype)


def read_tensors(file: Path, config: dict, unet: UNetConfig, shapes: dict, dtype) -> dict:
    """The parameters in the tree of `shapes`, {"unet", "vae", "text_encoder"} for instance.

    `config` is what `read_config` gives. Raises as `load_single_file` does.
    """
    names = _names(file, _kind(config), config.get("text_encoder", {}).get("layers"))
    return uncut(read_params(file, expected_tensors(config, unet, shapes), names, dtype))


def expected_tensors(config: dict, unet: UNetConfig, shapes: dict) -> dict:
    """{name in the file: (our path, our shape if the tensors were cut as in the file)}, by name."""
    kind, levels = _kind(config), len(config["vae"]["ch_mult"])
    expected = {}
    for part, tree in shapes.items():
        if part == "unet":
            found = {UNET + key: place for key, place in ldm.expected(unet, tree).items()}
        elif part == "cc_projection":
            found = keys.flatten(tree, "cc_projection.")
        elif part == "vae":
            flat = keys.flatten(cut(part, kind, tree))
            found = {VAE + vae_key(key, levels): place for key, place in flat.items()}
        else:
            flat = keys.flatten(cut(part, kind, tree))
            found = {ENCODERS[kind] + encoder_key(key, kind): flat[key] for key in flat}
        expected |= {name: ((part, *path), leaf) for name, (path, leaf) in found.items()}
    return {name: expected[name] for name in sorted(expected)}


def _kind(config: dict) -> str:
    """Which of `ENCODERS` a model has."""
    return config["text_encoder"]["kind"] if "text_encoder" in config else "image"


def _names(file: Path, kind: str, layers: int | None) -> Callable:
    """The `names` of `read_params`: all but what belongs to none of the networks.

    `layers` of OpenCLIP's encoder, of which the last is not read.
    """
    ignored = re.compile(f"{_IGNORED}|{_LEFT_OVER[kind]}")
    last = f"{ENCODERS['openclip']}transformer.resblocks.{(layers or 0) - 1}."

    def names(stored: set[str]) -> dict[str, str]:
        kept = {name: name for name in stored if not ignored.fullmatch(name)}
        if kind == "image":
            return kept | _averages(file, stored)
        if kind == "openclip":
            if not any(name.startswith(last) for name in stored):
                raise ValueError(f"{file}: tensors {last}* are missing; are there as many layers?")
            kept = {name: name for name in kept if not name.startswith(last)}
        return kept

    return names


def _averages(file: Path, stored: set[str]) -> dict[str, str]:
    """{tensor of the UNet: its moving average, whose name has no dots}, nothing if there are none.

    Raises ValueError for the first that is missing.
    """
    if not any(name.startswith("model_ema.diffusion_model") for name in stored):
        return {}
    averages = {
        name: "model_ema." + name.removeprefix("model.").replace(".", "")
        for name in sorted(stored)
        if name.startswith(UNET)
    }
    for name in averages.values():
        if name not in stored:
            raise ValueError(f"{file}: tensor {name} is missing")
    return averages
