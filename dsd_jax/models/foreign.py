"""What a file is that is not the one that was asked for, by its first bytes or the names in it.

For lines of errors: each answer but that of `pipeline` continues "FILE is ...".
"""

import re
from collections.abc import Iterable
from pathlib import Path

# {first bytes: what begins with them}, in the place of any file, and of one with weights
_ANY = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: git lfs pull",
    b"<": "a web page, not the file itself: fetch it again",
}
_WEIGHTS = {
    b"PK\x03\x04": "a zip archive or PyTorch's pickle, not safetensors: convert it with "
    "experiments/tools/convert_weights.py",
    b"\x80": "a pickle, not safetensors: convert it with experiments/tools/convert_weights.py",
    b"GGUF": "a GGUF file, which is not read: take the model's safetensors",
    b"\x89HDF": "an HDF5 file, which is not read: take the model's safetensors",
}
# (pattern that the name of a tensor begins with, what holds such tensors); the first that is met
# goes.
_LAYOUTS = (
    (
        r".*(\blora_|_lora\b|\.lora[._]|\.lora_)|lycoris_|.*\.(hada|lokr)_",
        "a LoRA, which changes another model and is none itself: merge it into that model first",
    ),
    (
        r"controlnet_|control_model\.|input_hint_block\.|zero_convs\.",
        "a ControlNet, not a model of its own",
    ),
    (r"image_proj\.|ip_adapter\.", "an IP-Adapter, which is told of a picture, not a model"),
    (r"emb_params|string_to_param|<.*>$", "an embedding of textual inversion, not a model"),
    (
        r"conditioner\.embedders\.",
        "a whole checkpoint of Stable Diffusion XL's kind, which is not supported",
    ),
    (
        r"(model\.diffusion_model\.)?(joint_blocks|double_blocks|single_transformer_blocks)\.",
        "a diffusion transformer (of Stable Diffusion 3's or Flux's kind), which is not supported",
    ),
    (
        r"model\.diffusion_model\.|first_stage_model\.|cond_stage_model\.|model_ema\.",
        "a whole checkpoint in the original latent-diffusion layout",
    ),
    (
        r"(input_blocks|output_blocks|middle_block)\.",
        "a UNet with the names of the original latent-diffusion code",
    ),
    (
        r"(down_blocks|up_blocks|mid_block)\.",
        "a UNet with diffusers' names",
    ),
    (
        r"(encoder|decoder)\.(down_blocks|up_blocks|mid_block|down|up|mid)\.",
        "a VAE",
    ),
    (r"(text_model|vision_model|transformer)\.|token_embedding|encoder\.layers", "a CLIP encoder"),
    (r"(module|_orig_mod|unet|vae|text_encoder|state_dict|ema_model)\.", ""),
)
# Beginnings of the names of pipelines and networks whose folders may look like Stable Diffusion's.
_FAMILIES = re.compile(
    r"StableDiffusion(3|XL|LatentUpscale|Upscale|LDM3D)|StableCascade|StableVideo|StableAudio|SD3|"
    r"Flux|PixArt|Kandinsky|Hunyuan|Sana|AuraFlow|CogV|Lumina|LTX|Wan[A-Z0-9]|Qwen|Chroma|HiDream|"
    r"Wuerstchen|IF[A-Z]|DiT|AnimateDiff|\w+Transformer\w*Model"
)


def pipeline(index: dict) -> object:
    """What a model_index.json names that is of another family than Stable Diffusion, else None.

    Pipelines of people's own have any name, also in a list with that of their file.
    """
    kind = index.get("_class_name", "")
    if not isinstance(kind, str | list):
        return kind
    network = index.get("unet")
    names = [*(kind if isinstance(kind, list) else [kind]),
             *(network if isinstance(network, list) else [network])]  # fmt: skip
    return next((n for n in names if isinstance(n, str) and _FAMILIES.match(n)), None)


def beginning(file: Path) -> str | None:
    """What a file that should hold weights is by its first bytes, None where they do not tell."""
    return not_itself(file) or _of(_first(file), _WEIGHTS)


def not_itself(file: Path) -> str | None:
    """What stands in the place of any file by its first bytes, None where they do not tell."""
    first = _first(file)
    return _of(first, _ANY) if first else "empty: fetch it again"


def _first(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(32)


def _of(first: bytes, beginnings: dict[bytes, str]) -> str | None:
    return next((what for start, what in beginnings.items() if first.startswith(start)), None)


def layout(names: Iterable[str]) -> str | None:
    """What holds tensors of these names, None where they do not tell."""
    names = list(names)
    for pattern, what in _LAYOUTS:
        met = next((name for name in names if re.match(pattern, name)), None)
        if met is not None:
            wrapped = f"a model whose tensors' names begin with {met.partition('.')[0]}."
            return what or f"{wrapped}, as training code wraps them: take that away"
    return None
