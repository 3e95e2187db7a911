"""Diffusers' Flax pipelines (diffusers < 0.40) -> our networks and parameters.

Layouts are ours, since both are Flax. Names differ in

    vae            query, key, value and proj_attn of its attention are to_q, to_k, to_v, to_out_0
    text_encoder   text_model / encoder / layers / 0 / ... is encoder / layers_0 / ...
"""

from typing import Any

import jax.numpy as jnp
from flax import traverse_util

from dsd_jax.models.networks import build, param_shapes
from dsd_jax.models.tensor_files import check
from dsd_jax.models.weights import Pipeline

_PARTS = ("unet", "vae", "text_encoder")
_OURS = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out_0"}

Path = tuple[str, ...]


def convert(pipeline, params) -> Pipeline:
    """A FlaxStableDiffusionPipeline and the params it came with, as our `Pipeline`.

    The networks compute in the dtype of the pipeline's unet (float32 where it has none); arrays are
    taken as they are.
    Raises ValueError for an unsupported configuration, or for the first parameter that is missing,
    misshapen, too many or not finite.
    """
    configs = {part: _dictionary(getattr(pipeline, part).config) for part in _PARTS}
    dtype = pipeline.unet.dtype
    networks = build(**configs, dtype=jnp.float32 if dtype is None else dtype)
    shapes = param_shapes(networks)
    renamed = {part: _renamed(part, params[part], shapes[part]) for part in _PARTS}
    return Pipeline(networks, renamed, _dictionary(pipeline.scheduler.config))


def our_path(path: Path) -> Path:
    """("text_model", "encoder", "layers", "0", "mlp") -> ("encoder", "layers_0", "mlp")."""
    ours: list[str] = []
    for name in path:
        if name.isdigit():
            ours[-1] += f"_{name}"
        elif name != "text_model":
            ours.append(_OURS.get(name, name))
    return tuple(ours)


def _renamed(part: str, params, shapes: dict) -> dict:
    """The tree of `shapes` filled from diffusers' params of one network."""
    leaves: dict[Path, Any] = traverse_util.flatten_dict(params)
    found = {our_path(path): leaf for path, leaf in leaves.items()}
    expected: dict[Path, Any] = traverse_util.flatten_dict(shapes)
    check(f"{part} params", _shapes(expected), _shapes(found))
    for path, leaf in found.items():
        if not jnp.isfinite(leaf).all():
            raise ValueError(f"{part} params: {'/'.join(path)} holds NaN or infinite numbers")
    return traverse_util.unflatten_dict(found)


def _shapes(leaves: dict[Path, Any]) -> dict[str, tuple[int, ...]]:
    return {"/".join(path): tuple(leaves[path].shape) for path in sorted(leaves)}


def _dictionary(config) -> dict:
    """A configuration of transformers or of diffusers as a plain dictionary."""
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)
