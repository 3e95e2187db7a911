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
Those of published models are in `configs/`; one of them serves a file that has none beside it, and
whose tensors it alone describes. Of two that look the same to the tensors, the file's metadata or
the caller decides.
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
from dsd_jax.models.tensor_files import Shape, read_json, stored_metadata, stored_shapes
from dsd_jax.schedule import NoiseSchedule

CONFIGS = Path(__file__).parent / "configs"
POSES = ("distance", "elevation")
LAST_NUMBER = (
    "say --pose distance for Zero-1-to-3 and Zero123-XL, --pose elevation for Stable Zero123 "
    '(load_prior(..., pose="elevation") in Python)'
)
# What the metadata of a file may say of its prediction type (ModelSpec's keys and values).
_PREDICTIONS = {
    "modelspec.prediction_type": {"v": "v_prediction", "epsilon": "epsilon"},
    "modelspec.architecture": {
        "stable-diffusion-v2-768-v": "v_prediction",
        "stable-diffusion-v2-512": "epsilon",
    },
}

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


def read_config(file: Path, pose: str | None = None) -> dict:
    """The JSON file beside a checkpoint, or one of `configs/` if it recognises the tensors.

    Args:
        pose: what the entry of that name has to say, if a user said so.

    Raises FileNotFoundError for a missing checkpoint, or JSON file; ValueError for one that cannot
    be read, that lacks one of its parts, or that is not the one asked for; and for a file whose
    tensors suit several models.
    """
    place = file.with_suffix(".json")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing")
    if not place.is_file():
        place = _recognised(file, place, pose)
    config = read_json(place)
    parts = ("unet", "vae", "text_encoder", "scheduler")
    if "image_encoder" in config:
        parts = ("unet", "vae", "image_encoder", "scheduler")
        config["pose"] = checked_pose(place, config.get("pose"), pose) or POSES[0]
    if {*config} - {"pose"} != {*parts}:
        raise ValueError(f"{place} needs the entries {', '.join(parts)}, and no others")
    for part in parts:
        if not isinstance(config[part], dict):
            raise ValueError(f"{place}: {part} needs named entries, got {shown(config[part])}")
    return config


def checked_pose(place: Path, said: object, asked: str | None) -> str | None:
    """The kind of pose that the file `place` says, or that is asked for, None for neither.

    Raises ValueError for what is none of `POSES`, and where the two differ.
    """
    for name in (said, asked):
        if name is not None and name not in POSES:
            raise ValueError(f"{place}: pose needs one of {', '.join(POSES)}, got {shown(name)}")
    if said is not None and asked not in (None, said):
        raise ValueError(f"{place} says that pose is {said}, not {asked}")
    return asked if said is None else str(said)


def _recognised(file: Path, place: Path, pose: str | None) -> Path:
    """The file of `configs/` that suits a checkpoint; says which."""
    shapes = stored_shapes(file)
    names = _as_told(recognise(shapes), _prediction(file), pose)
    if len(names) > 1:
        posed = any("pose" in read_json(CONFIGS / f"{name}.json") for name in names)
        ask = f"{LAST_NUMBER}, or " if posed else ""
        raise ValueError(
            f"{file}: its tensors suit {' and '.join(names)} alike; {ask}copy the one of "
            f"{CONFIGS} that it is to {place}"
        )
    if not names:
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
    logging.getLogger(__name__).warning(
        "%s: no %s beside it, read as %s", file, place.name, names[0]
    )
    return CONFIGS / f"{names[0]}.json"


def _as_told(names: list[str], prediction: str | None, pose: str | None) -> list[str]:
    """Those of `names` in `configs/` that agree with what is known beside the tensors."""
    found = []
    for name in names:
        config = read_json(CONFIGS / f"{name}.json")
        own = config["scheduler"]["prediction_type"]
        if prediction in (None, own) and pose in (None, config.get("pose", pose)):
            found.append(name)
    return found


def _prediction(file: Path) -> str | None:
    """The prediction type that a checkpoint's metadata names."""
    metadata = stored_metadata(file)
    told = (values.get(metadata.get(key, "")) for key, values in _PREDICTIONS.items())
    return next((prediction for prediction in told if prediction), None)


def recognise(shapes: dict[str, Shape]) -> list[str]:
    """The configurations in `configs/` whose models have tensors of these {name: shape}."""
    return [
        path.stem
        for path in sorted(CONFIGS.glob("*.json"))
        if all(shapes.get(name) == shape for name, shape in _marks(read_json(path)).items())
    ]


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
