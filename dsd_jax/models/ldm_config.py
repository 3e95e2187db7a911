"""What a single file of the latent-diffusion code looks like: the JSON file that describes it.

    unet            `unet_config.params` of the model's YAML file; image_size counts, though some of
                    these files call theirs unused: the side of the latents it was trained on
    vae             its `first_stage_config.params.ddconfig`, and `scale_factor`
    text_encoder    kind ("clip" or "openclip"); vocab_size, width, layers, heads and
                    context_length, which count as in the checkpoint; mlp_ratio (4), quick_gelu
                    (true for "clip", else false), as in OpenCLIP's own files
    image_encoder   instead, for Zero-1-to-3: OpenAI's CLIP: image_size, patch_size, width, layers,
                    heads, embed_dim; mlp_ratio (4), quick_gelu (true)
    pose            with it, optional: what its last number is, "distance" (the default) or
                    "elevation" (Stable Zero123), see `priors.zero123.pose_vector`
    scheduler       as in scheduler_config.json of a diffusers folder
Those of published models are in `configs/`; one of them serves a file that has none beside it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from dsd_jax.models import foreign
from dsd_jax.models.config_limits import VAE_BOUNDS
from dsd_jax.models.entries import (
    check_fixed,
    check_flags,
    check_numbers,
    is_whole,
    levels_of,
    require,
    shown,
)
from dsd_jax.models.ldm_names import ENCODERS, UNET
from dsd_jax.models.tensor_files import Shape, read_json, stored_shapes
from dsd_jax.schedule import NoiseSchedule

CONFIGS = Path(__file__).parent / "configs"
POSES = ("distance", "elevation")
# Of configurations whose tensors look alike, these are for files that are called so.
_CALLED = {"stable-diffusion-v2": "768", "stable-zero123": "stable"}

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
_IMAGE_NUMBERS = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "embed_dim": "projection_dim",
}
_VAE_FIXED = {"attn_resolutions": [], "attn_type": "vanilla", "double_z": True}
_SCHEDULE = ("prediction_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end")


def read_config(file: Path) -> dict:
    """The JSON file beside a checkpoint, or one of `configs/` if it recognises the tensors.

    Raises FileNotFoundError for a missing checkpoint, or JSON file; ValueError for one that cannot
    be read, or that lacks one of its parts.
    """
    place = file.with_suffix(".json")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing")
    if not place.is_file():
        place = _recognised(file, place)
    config = read_json(place)
    parts = ("unet", "vae", "text_encoder", "scheduler")
    if "image_encoder" in config:
        parts = ("unet", "vae", "image_encoder", "scheduler")
        if config.setdefault("pose", POSES[0]) not in POSES:
            raise ValueError(f"{place}: pose needs one of {', '.join(POSES)}")
    if {*config} - {"pose"} != {*parts}:
        raise ValueError(f"{place} needs the entries {', '.join(parts)}, and no others")
    for part in parts:
        if not isinstance(config[part], dict):
            raise ValueError(f"{place}: {part} needs named entries, got {shown(config[part])}")
    return config


def _recognised(file: Path, place: Path) -> Path:
    """The file of `configs/` that suits a checkpoint; says which."""
    shapes = stored_shapes(file)
    name, alike = recognise(shapes, file.stem)
    if name is None:
        ready = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.json")))
        what = foreign.layout(shapes)
        if what is not None and "latent-diffusion layout" not in what:
            raise ValueError(
                f"{file} is {what}; a single file has to be a whole checkpoint in the original "
                "latent-diffusion layout"
            )
        raise FileNotFoundError(
            f"{place} is missing: it has to describe the model {file.name}, which is none that is "
            f"known here by its tensors; write it, or copy one of {CONFIGS} there ({ready})"
        )
    other = f" ({' or '.join(alike)} looks the same)" if alike else ""
    logging.getLogger(__name__).warning(
        "%s: no %s beside it, read as %s%s", file, place.name, name, other
    )
    return CONFIGS / f"{name}.json"


def recognise(shapes: dict[str, Shape], called: str) -> tuple[str | None, list[str]]:
    """The configuration in `configs/` whose model has tensors of these {name: shape}, or None.

    Also the others that these tensors do not exclude; `called`, the name of the file, decides.
    """
    fitting = [
        path.stem
        for path in sorted(CONFIGS.glob("*.json"))
        if all(shapes.get(name) == shape for name, shape in _marks(read_json(path)).items())
    ]
    suitable = [n for n in fitting if n not in _CALLED or _CALLED[n] in called.lower()]
    chosen = max(suitable, key=lambda n: n in _CALLED, default=None)
    return chosen, [name for name in fitting if name != chosen]


def _marks(config: dict) -> dict[str, Shape | None]:
    """{name: shape, None for a tensor that is not there} that tell a model from the others."""
    unet, text, image = (config.get(part, {}) for part in ("unet", "text_encoder", "image_encoder"))
    width, context, camera = (unet.get(n) for n in ("model_channels", "context_dim", "camera_dim"))
    kind, patch = text.get("kind", "image"), image.get("patch_size")
    encoders = {
        "clip": ("embeddings.token_embedding.weight", (text.get("vocab_size"), text.get("width"))),
        "openclip": ("transformer.resblocks.0.ln_1.weight", (text.get("width"),)),
        "image": ("conv1.weight", (image.get("width"), 3, patch, patch)),
    }
    return {
        f"{UNET}input_blocks.0.0.weight": (width, unet["in_channels"], 3, 3),
        f"{UNET}camera_embed.0.weight": camera and (4 * width, camera),
        f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight": (
            width * unet["channel_mult"][-1],
            context,
        ),
        **{
            ENCODERS[name] + tensor: shape if name == kind else None
            for name, (tensor, shape) in encoders.items()
        },
    }


def vae_config(config: dict) -> dict:
    """The entries of diffusers' vae/config.json, from those of the JSON file."""
    required = ("ch", "ch_mult", "scale_factor", *_VAE_NUMBERS)
    _check_entries("vae", config, required, ("dropout", *_VAE_FIXED))
    check_fixed("vae", config, _VAE_FIXED)
    check_numbers("vae", config, {"scale_factor": VAE_BOUNDS["scaling_factor"]})
    factors = levels_of("vae", "ch_mult", config["ch_mult"])
    (base,) = _integers("vae", "ch", [config["ch"]])
    return {
        "block_out_channels": [base * n for n in _integers("vae", "ch_mult", factors)],
        "scaling_factor": config["scale_factor"],
        **_renamed("vae", config, _VAE_NUMBERS),
    }


def text_encoder_config(config: dict) -> dict:
    """The entries of transformers' text_encoder/config.json, from those of the JSON file."""
    _check_entries("text_encoder", config, ("kind", *_TEXT_NUMBERS), ("mlp_ratio", "quick_gelu"))
    kind = config["kind"]
    if kind not in ("clip", "openclip"):
        raise ValueError(
            f"text_encoder config: kind = {shown(kind)} is not supported, only clip and openclip"
        )
    entries = _renamed("text_encoder", config, _TEXT_NUMBERS)
    entries["num_hidden_layers"] -= kind == "openclip"
    width, vocabulary = entries["hidden_size"], entries["vocab_size"]
    return {
        **entries,
        **_mlp("text_encoder", config, width, kind == "clip"),
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "projection_dim": width,
    }


def image_encoder_config(config: dict) -> dict:
    """The entries of transformers' image_encoder/config.json, from those of the JSON file."""
    _check_entries("image_encoder", config, _IMAGE_NUMBERS, ("mlp_ratio", "quick_gelu"))
    entries = _renamed("image_encoder", config, _IMAGE_NUMBERS)
    return {**entries, **_mlp("image_encoder", config, entries["hidden_size"], True)}


def scheduler_config(config: dict) -> dict:
    """Itself, after a check that it is whole. Raises as `NoiseSchedule.from_config` does."""
    require("scheduler", config, _SCHEDULE)
    NoiseSchedule.from_config(config)
    return config


def _mlp(part: str, config: dict, width: int, quick_gelu: bool) -> dict:
    """Width and activation of an encoder's layers; `quick_gelu` is the default."""
    entries = {"mlp_ratio": 4, "quick_gelu": quick_gelu, **config}
    check_numbers(part, entries, {"mlp_ratio": (0.01, 100.0)})
    check_flags(part, entries, ["quick_gelu"])
    return {
        "intermediate_size": int(width * entries["mlp_ratio"]),
        "hidden_act": "quick_gelu" if entries["quick_gelu"] else "gelu",
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


def _integers(part: str, name: str, values: Sequence) -> Sequence[int]:
    for value in values:
        if not is_whole(value) or value < 1:
            raise ValueError(f"{part} config: {name} needs a positive integer, got {shown(value)}")
    return values
