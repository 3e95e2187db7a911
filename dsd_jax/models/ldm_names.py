"""Names and cuts of the VAE's and CLIP's tensors in the files of the latent-diffusion code.

    first_stage_model.                    the VAE; attention's linear layers are 1 x 1 convolutions
    cond_stage_model.transformer.         transformers' CLIP text encoder (Stable Diffusion 1.x)
    cond_stage_model.model.               OpenCLIP's (Stable Diffusion 2.x, MVDream)
    cond_stage_model.model.visual.        OpenAI's CLIP vision encoder (Zero-1-to-3)
In the last two query, key and value are one layer, in_proj, and the vision encoder ends in a bare
matrix, proj, [in, out]. `cut` gives our shapes as they are there, `uncut` undoes it on parameters.
"""

import re
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from dsd_jax.models import keys

UNET, VAE = "model.diffusion_model.", "first_stage_model."
# {kind of what embeds the prompt or the image: what its names begin with}
ENCODERS = {
    "clip": "cond_stage_model.transformer.text_model.",
    "openclip": "cond_stage_model.model.",
    "image": "cond_stage_model.model.visual.",
}
# Diffusers' and transformers' names -> the original ones, one after the other.
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
_LAYER_NAMES = (
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.self_attn\.in_proj\.", ".attn.in_proj_"),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.fc1\.", ".c_fc."),
    (r"\.fc2\.", ".c_proj."),
)
_OPENCLIP_NAMES = (
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^final_layer_norm\.", "ln_final."),
    *_LAYER_NAMES,
)
_VISION_NAMES = (
    (r"^vision_model\.", ""),
    (r"^embeddings\.class_embedding$", "class_embedding"),
    (r"^embeddings\.patch_embedding\.", "conv1."),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^pre_layrnorm\.", "ln_pre."),
    (r"^post_layernorm\.", "ln_post."),
    *_LAYER_NAMES,
)
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def vae_key(key: str, levels: int) -> str:
    """Diffusers' name of a VAE's tensor -> the original one, which counts up from the finest level.

    "decoder.up_blocks.0.resnets.1.conv1.bias" -> "decoder.up.3.block.1.conv1.bias" of 4 levels.
    """
    key = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{levels - 1 - int(match[1])}", key)
    return _substituted(key, _VAE_NAMES)


def encoder_key(key: str, kind: str) -> str:
    """Transformers' name of an encoder's tensor, without "text_model.", -> that in the file.

    Of what `cut` gives: query, key and value are in_proj, the visual projection is proj.
    """
    return _substituted(key, {"openclip": _OPENCLIP_NAMES, "image": _VISION_NAMES}.get(kind, ()))


def cut(part: str, kind: str, shapes: dict) -> dict:
    """Shapes of the VAE ("vae") or of the encoder of a kind, as the tensors are in the file."""
    if part == "vae":
        return jax.tree.map(
            lambda leaf: leaf if leaf.ndim != 2 else _shape((1, 1, *leaf.shape)), shapes
        )
    return shapes if kind == "clip" else _fused(shapes)


def uncut(params: dict) -> dict:
    """The parameters of all networks, {"vae": ..., ...}, as before `cut`."""
    before = {}
    for path, leaf in _flat(params).items():
        if path[-2] == "in_proj":
            for name, part in zip(_PROJECTIONS, np.split(leaf, 3, -1), strict=True):
                before[*path[:-2], name, path[-1]] = np.ascontiguousarray(part)
        elif path[-1] == "proj":
            before[*path[:-1], "visual_projection", "kernel"] = leaf
        else:
            linear = path[0] == "vae" and "attentions_0" in path and path[-1] == "kernel"
            before[path] = leaf[0, 0] if linear else leaf
    return traverse_util.unflatten_dict(before)


def _fused(shapes: dict) -> dict:
    """An encoder's shapes with query, key and value side by side, and a bare last matrix."""
    fused = {}
    for path, leaf in _flat(shapes).items():
        if path[-2] == _PROJECTIONS[0]:
            shape = (*leaf.shape[:-1], 3 * leaf.shape[-1])
            fused[*path[:-2], "in_proj", path[-1]] = _shape(shape)
        elif path[-2] == "visual_projection":
            fused[*path[:-2], "proj"] = leaf
        elif path[-2] not in _PROJECTIONS:
            fused[path] = leaf
    return traverse_util.unflatten_dict(fused)


def _shape(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


def _flat(tree: dict) -> dict[keys.Path, Any]:
    return dict(traverse_util.flatten_dict(tree))


def _substituted(key: str, table) -> str:
    for pattern, name in table:
        key = re.sub(pattern, name, key)
    return key
