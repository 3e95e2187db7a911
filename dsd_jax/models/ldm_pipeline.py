"""A whole checkpoint of the latent-diffusion code, such as MVDream's, in one safetensors file.

    model.safetensors
        model.diffusion_model.               the UNet, named as in `ldm.py`
        first_stage_model.                   the VAE
        cond_stage_model.transformer.        CLIP's text encoder (Stable Diffusion 1.x)
        cond_stage_model.model.              or OpenCLIP's (Stable Diffusion 2.x, MVDream)
    model.json                               what the networks look like, written by hand:
        unet            `unet_config.params` of the model's YAML file
        vae             its `first_stage_config.params.ddconfig`, and `scale_factor`
        text_encoder    kind ("clip" or "openclip"); vocab_size, width, layers, heads and
                        context_length, which count as in the checkpoint; mlp_ratio (4), quick_gelu
                        (true for "clip", else false), as in OpenCLIP's own files
        scheduler       as in scheduler_config.json of a diffusers folder
    tokenizer/          that of a diffusers folder of the same family (read by `priors`)

Models that use OpenCLIP take the hidden states before its last block, normalised. As in diffusers'
folders the encoder has one layer fewer for that; the last block has to be there but is not read.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from dsd_jax.models import keys
from dsd_jax.models.config import check_fixed, require
from dsd_jax.models.ldm import modules, rename, unet_config
from dsd_jax.models.networks import Networks, build, param_shapes
from dsd_jax.models.weights import Pipeline, read_params

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_TEXT = {"clip": "cond_stage_model.transformer.text_model.", "openclip": "cond_stage_model.model."}
# Tensors that belong to training, to sampling or to another model's conditioning.
_IGNORED = re.compile(
    r"betas|alphas_cumprod(_prev)?|lvlb_weights|(sqrt_|log_one_minus_|posterior_)\w+"
    r"|(model_ema|cc_projection)\..+"
)
# {entry of the JSON file: its name in diffusers' or transformers' config.json}
_VAE_NUMBERS = {
    "num_res_blocks": "layers_per_block",
    "z_channels": "latent_channels",
    "in_channels": "in_channels",
    "out_ch": "out_channels",
    "resolution": "sample_size",
}
_TEXT_NUMBERS = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "context_length": "max_position_embeddings",
}
_VAE_FIXED = {"attn_resolutions": [], "attn_type": "vanilla", "double_z": True}
_SCHEDULE = ("prediction_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end")
# Diffusers' names -> the original ones, one after the other.
_VAE_NAMES = (
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"mid_block\.attentions\.0\.", "mid.attn_1."),
    (r"down_blocks\.", "down."),
    (r"\.resnets\.", ".block."),
    (r"\.(down|up)samplers\.0\.", r".\1sample."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
)
_OPENCLIP_NAMES = (
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.self_attn\.in_proj\.", ".attn.in_proj_"),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.fc1\.", ".c_fc."),
    (r"\.fc2\.", ".c_proj."),
)
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def load_single_file(file, dtype=jnp.float32, param_dtype=None) -> Pipeline:
    """Reads a checkpoint; parameters are NumPy arrays of `param_dtype` (default `dtype`).

    `dtype` is the type the networks compute in.
    Raises FileNotFoundError if the file, or the JSON file beside it, is missing; ValueError for one
    that cannot be read, for an entry of the JSON file that is missing or not supported, and for the
    first tensor that is missing, misshapen or too many.
    """
    file = Path(file)
    config = _read_config(file)
    try:
        networks = _networks(config, dtype)
    except ValueError as error:
        raise ValueError(f"{file.with_suffix('.json')}: {error}") from None
    kind, layers = (config["text_encoder"][name] for name in ("kind", "layers"))
    expected, names = _expected(networks, kind), _names(file, kind, layers)
    param_dtype = jnp.dtype(dtype if param_dtype is None else param_dtype)
    params = _split(read_params(file, expected, names, param_dtype))
    return Pipeline(networks, params, config["scheduler"])


# ---- configuration --------------------------------------------------------------------------


def _read_config(file: Path) -> dict:
    """The JSON file beside a checkpoint: {"unet", "vae", "text_encoder", "scheduler"}."""
    place = file.with_suffix(".json")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing")
    if not place.is_file():
        raise FileNotFoundError(f"{place} is missing: it has to describe the model {file.name}")
    try:
        config = json.loads(place.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {error}") from None
    parts = (*Networks._fields, "scheduler")
    if not isinstance(config, dict) or set(config) != set(parts):
        raise ValueError(f"{place} needs the entries {', '.join(parts)}, and no others")
    for part in parts:
        if not isinstance(config[part], dict):
            raise ValueError(f"{place}: {part} needs named entries, got {config[part]!r}")
    return config


def _networks(config: dict, dtype) -> Networks:
    require("scheduler", config["scheduler"], _SCHEDULE)
    unet = unet_config(config["unet"]).to_dict()
    return build(unet, _vae(config["vae"]), _text_encoder(config["text_encoder"]), dtype)


def _vae(config: dict) -> dict:
    """The entries of diffusers' vae/config.json."""
    required = ("ch", "ch_mult", "scale_factor", *_VAE_NUMBERS)
    _check_entries("vae", config, required, ("dropout", *_VAE_FIXED))
    check_fixed("vae", config, _VAE_FIXED)
    scale = config["scale_factor"]
    if not isinstance(scale, int | float) or not scale > 0:
        raise ValueError(f"vae config: scale_factor needs a positive number, got {scale!r}")
    factors = config["ch_mult"]
    if not isinstance(factors, list) or not factors:
        raise ValueError(f"vae config: ch_mult needs a list of integers, got {factors!r}")
    (base,) = _integers("vae", "ch", [config["ch"]])
    return {
        "block_out_channels": [base * n for n in _integers("vae", "ch_mult", factors)],
        "scaling_factor": scale,
        **_renamed("vae", config, _VAE_NUMBERS),
    }


def _text_encoder(config: dict) -> dict:
    """The entries of transformers' text_encoder/config.json."""
    _check_entries("text_encoder", config, ("kind", *_TEXT_NUMBERS), ("mlp_ratio", "quick_gelu"))
    kind = config["kind"]
    if kind not in _TEXT:
        raise ValueError(
            f"text_encoder config: kind = {kind!r} is not supported, only {' and '.join(_TEXT)}"
        )
    entries = _renamed("text_encoder", config, _TEXT_NUMBERS)
    entries["num_hidden_layers"] -= kind == "openclip"
    width, vocabulary = entries["hidden_size"], entries["vocab_size"]
    return {
        **entries,
        "intermediate_size": int(width * config.get("mlp_ratio", 4)),
        "hidden_act": "quick_gelu" if config.get("quick_gelu", kind == "clip") else "gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "projection_dim": width,
    }


def _check_entries(part: str, config: dict, required, optional) -> None:
    """Raises ValueError for the first entry that is unknown or missing."""
    for name in config:
        if name not in {*required, *optional}:
            raise ValueError(f"{part} config: entry {name} is not supported")
    require(part, config, required)


def _renamed(part: str, config: dict, table: dict[str, str]) -> dict[str, int]:
    """The positive integers of `config` that `table` names, under the names it gives them."""
    return {ours: _integers(part, name, [config[name]])[0] for name, ours in table.items()}


def _integers(part: str, name: str, values: list) -> list[int]:
    for value in values:
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{part} config: {name} needs a positive integer, got {value!r}")
    return values


# ---- tensors --------------------------------------------------------------------------------


def _expected(networks: Networks, kind: str) -> dict:
    """{name in the file: (our path, our shape if the tensors were cut as in the file)}, by name."""
    shapes = param_shapes(networks)
    theirs = {ours: name for name, ours in modules(networks.unet.config).items()}
    levels = len(networks.vae.config.block_out_channels)
    text, text_key = shapes["text_encoder"], str
    if kind == "openclip":
        text, text_key = _fused(text), openclip_key
    parts = (
        ("unet", _UNET, shapes["unet"], lambda key: rename(key, theirs)),
        ("vae", _VAE, _convolutional(shapes["vae"]), lambda key: vae_key(key, levels)),
        ("text_encoder", _TEXT[kind], text, text_key),
    )
    expected = {
        prefix + name(key): ((part, *path), leaf)
        for part, prefix, tree, name in parts
        for key, (path, leaf) in keys.flatten(tree).items()
    }
    return {name: expected[name] for name in sorted(expected)}


def vae_key(key: str, levels: int) -> str:
    """Diffusers' name of a VAE's tensor -> the original one, which counts up from the finest level.

    "decoder.up_blocks.0.resnets.1.conv1.bias" -> "decoder.up.3.block.1.conv1.bias" of 4 levels.
    """
    key = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{levels - 1 - int(match[1])}", key)
    return _substituted(key, _VAE_NAMES)


def openclip_key(key: str) -> str:
    """Transformers' name of a text encoder's tensor, without "text_model.", -> OpenCLIP's.

    Query, key and value, which are one tensor there, have to be called in_proj.
    """
    return _substituted(key, _OPENCLIP_NAMES)


def _substituted(key: str, table) -> str:
    for pattern, name in table:
        key = re.sub(pattern, name, key)
    return key


def _flat(tree: dict) -> dict[keys.Path, Any]:
    return dict(traverse_util.flatten_dict(tree))


def _convolutional(shapes: dict) -> dict:
    """A VAE's shapes, linear layers [c, c] of its attention being convolutions [1, 1, c, c]."""
    return jax.tree.map(
        lambda leaf: leaf if leaf.ndim != 2 else jax.ShapeDtypeStruct((1, 1, *leaf.shape), "f4"),
        shapes,
    )


def _fused(shapes: dict) -> dict:
    """A text encoder's shapes with query, key and value side by side as one layer, in_proj."""
    fused = {}
    for path, leaf in _flat(shapes).items():
        if path[-2] == _PROJECTIONS[0]:
            shape = (*leaf.shape[:-1], 3 * leaf.shape[-1])
            fused[*path[:-2], "in_proj", path[-1]] = jax.ShapeDtypeStruct(shape, leaf.dtype)
        elif path[-2] not in _PROJECTIONS:
            fused[path] = leaf
    return traverse_util.unflatten_dict(fused)


def _split(params: dict) -> dict:
    """Undoes `_convolutional` and `_fused`, on the parameters of all networks."""
    split = {}
    for path, leaf in _flat(params).items():
        if path[-2] == "in_proj":
            for name, part in zip(_PROJECTIONS, np.split(leaf, 3, -1), strict=True):
                split[*path[:-2], name, path[-1]] = np.ascontiguousarray(part)
        else:
            linear = path[0] == "vae" and "attentions_0" in path and path[-1] == "kernel"
            split[path] = leaf[0, 0] if linear else leaf
    return traverse_util.unflatten_dict(split)


def _names(file: Path, kind: str, layers: int) -> Callable:
    """The `names` of `read_params`: all but what belongs to none of the networks."""
    prefix = _TEXT[kind]
    last = f"{prefix}transformer.resblocks.{layers - 1}."
    ignored = {
        "clip": (f"{prefix}embeddings.position_ids",),
        "openclip": (f"{prefix}text_projection", f"{prefix}logit_scale", last),
    }[kind]

    def names(stored: set[str]) -> dict[str, str]:
        if kind == "openclip" and not any(name.startswith(last) for name in stored):
            raise ValueError(f"{file}: tensors {last}* are missing; are there as many layers?")
        kept = (n for n in stored if not _IGNORED.fullmatch(n) and not n.startswith(ignored))
        return {name: name for name in kept}

    return names
