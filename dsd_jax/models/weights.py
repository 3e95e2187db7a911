"""Diffusers' folder layout <-> networks and parameters, by safetensors and without torch.

    folder/model_index.json
    folder/unet, vae          config.json, diffusion_pytorch_model.safetensors
    folder/text_encoder       config.json, model.safetensors
    folder/tokenizer          vocab.json, merges.txt, ...
    folder/scheduler          scheduler_config.json
Weights may also be cut into shards (an index.json names them) and be diffusers' variant fp16 or
bf16.
A camera embedding lies in the unet's file as camera_embedding.linear_{1,2}.{weight,bias}, and
its width as "camera_dim" in the unet's config.json; PyTorch's diffusers ignores both. In MVDream's
port the unet is called a MultiViewUNetModel and keeps its original configuration and names, as in
`ldm`. Zero-1-to-3's ports have other networks: see `zero123`.
A part may lie in another pipeline's folder: {"shared": {"vae": "../toybox"}} in model_index.json,
our entry, says that the folder vae lies there.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dsd_jax.models import foreign, keys, ldm
from dsd_jax.models.entries import shown
from dsd_jax.models.networks import Networks, build, param_shapes
from dsd_jax.models.tensor_files import PICKLES, read_json, read_params
from dsd_jax.schedule import NoiseSchedule


class _Part(NamedTuple):
    """Where the weights of one network lie, and what precedes our names in its keys."""

    stem: str
    prefix: str = ""
    ignored: frozenset[str] = frozenset()


_PARTS = {
    "unet": _Part("diffusion_pytorch_model"),
    "vae": _Part("diffusion_pytorch_model"),
    "text_encoder": _Part(
        "model", "text_model.", frozenset({"text_model.embeddings.position_ids"})
    ),
    "image_encoder": _Part("model", "", frozenset({"vision_model.embeddings.position_ids"})),
    "cc_projection": _Part("diffusion_pytorch_model", "projection."),
    "clip_camera_projection": _Part("diffusion_pytorch_model", "proj."),
}
_FULL = ("{}.safetensors", "{}.safetensors.index.json")
_HALF = tuple(
    pattern.replace("fp16", variant)
    for variant in ("fp16", "bf16")
    for pattern in (
        "{}.fp16.safetensors",
        "{}.fp16.safetensors.index.json",
        "{}.safetensors.index.fp16.json",
    )
)
_MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
STABLE_DIFFUSION_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


class Pipeline(NamedTuple):
    """What a folder holds, but for the tokenizer.

    Attributes:
        params: {"unet": ..., "vae": ..., "text_encoder": ...}.
        scheduler: the dictionary of scheduler_config.json.
    """

    networks: Networks
    params: dict
    scheduler: dict = STABLE_DIFFUSION_SCHEDULER


def load_pipeline(folder, dtype=jnp.float32, param_dtype=None) -> Pipeline:
    """Reads a diffusers folder; parameters are NumPy arrays of `param_dtype` (default `dtype`).

    `dtype` is the type the networks compute in.
    Raises FileNotFoundError for a missing file, and ValueError for one that cannot be read, an
    unsupported configuration, or the first tensor that is missing, misshapen or too many.
    """
    folder = Path(folder)
    networks, scheduler = read_networks(folder, dtype), read_scheduler(folder)
    shapes = param_shapes(networks)
    param_dtype = jnp.dtype(dtype if param_dtype is None else param_dtype)
    params = {part: read_part(folder, part, shapes[part], param_dtype) for part in shapes}
    return Pipeline(networks, params, scheduler)


def read_networks(folder: Path, dtype=jnp.float32) -> Networks:
    """The networks that a folder's config.json files describe; no weights are needed.

    Raises as `load_pipeline` does.
    """
    configs = read_configs(folder, Networks._fields)
    try:
        return build(**configs, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def read_index(folder: Path) -> dict:
    """The entries of a folder's model_index.json. Raises as `read_configs` does."""
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"{folder} is not a diffusers folder (it has no model_index.json); "
            "pass the folder that holds unet/, vae/ and text_encoder/"
        )
    return read_json(folder / "model_index.json")


def read_configs(folder: Path, parts: Iterable[str]) -> dict[str, dict]:
    """{part: what its config.json says, as diffusers or transformers would have it}.

    Raises FileNotFoundError for what is missing, ValueError for what is not supported.
    """
    other = foreign.pipeline(read_index(folder))
    if other is not None:
        raise ValueError(
            f"{folder / 'model_index.json'} names {shown(other)}, which is not of the Stable "
            "Diffusion 1 and 2 family and not supported"
        )
    configs = {part: read_json(home(folder, part) / part / "config.json") for part in parts}
    if ldm.is_port(configs["unet"]):
        try:
            configs["unet"] = ldm.port_config(configs["unet"]).to_dict()
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
    return configs


def read_part(folder: Path, part: str, shapes: dict, dtype) -> dict:
    """The parameters of one network of a folder, in the tree of `shapes`.

    Raises as `load_pipeline` does.
    """
    folder, known = home(folder, part), _PARTS[part]
    expected = keys.flatten(shapes, known.prefix)
    config = read_json(folder / part / "config.json") if part == "unet" else {}
    if ldm.is_port(config):
        expected = ldm.expected(ldm.port_config(config), shapes)

    def names(stored):
        return {keys.modern(name): name for name in stored - known.ignored}

    return read_params(weights_file(folder, part), expected, names, dtype)


def home(folder: Path, part: str) -> Path:
    """The pipeline's folder that a part lies in: `folder`, or where its model_index.json says.

    Raises FileNotFoundError where that one lacks the part.
    """
    index = folder / "model_index.json"
    shared = read_json(index).get("shared", {}) if index.is_file() else {}
    if not isinstance(shared, dict) or not isinstance(shared.get(part, ""), str):
        raise ValueError(
            f"{index}: shared has to name the folder of each part, got {shown(shared)}"
        )
    if part not in shared:
        return folder
    other = folder / shared[part]
    if not (other / part).is_dir():
        raise FileNotFoundError(
            f"{folder} shares the {part} of {other}, which has none: put the two folders side by "
            "side again"
        )
    return other


def read_scheduler(folder: Path) -> dict:
    """The dictionary of a folder's scheduler_config.json.

    Raises FileNotFoundError, or ValueError for a schedule that is not supported.
    """
    file = folder / "scheduler" / "scheduler_config.json"
    config = read_json(file)
    try:
        NoiseSchedule.from_config(config)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return config


def weights_names(part: str, half_first: bool = False) -> list[str]:
    """The names that the weights of a network, or the index of their shards, may have.

    In order of preference, relative to the pipeline's folder.
    """
    patterns = (*_HALF, *_FULL) if half_first else (*_FULL, *_HALF)
    return [f"{part}/{pattern.format(_PARTS[part].stem)}" for pattern in patterns]


def weights_file(folder: Path, part: str) -> Path:
    """The safetensors file, or the index of shards, of one network; full precision before half."""
    names = weights_names(part)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(f.name for f in (folder / part).glob("*.safetensors"))
    if others:
        raise FileNotFoundError(
            f"{folder / part} holds {', '.join(others[:3])}, but none of the names that are read, "
            f"{', '.join(name.partition('/')[2] for name in names if name.endswith('rs'))}; "
            "rename the one to be read"
        )
    pickles = sorted(f.name for f in (folder / part).glob("*") if f.suffix in PICKLES)
    if pickles:
        raise FileNotFoundError(
            f"{folder / part} holds {pickles[0]} but no safetensors; pickles can run code and are "
            f"not read, convert: python experiments/tools/convert_weights.py {folder} NEW_FOLDER"
        )
    raise FileNotFoundError(f"{folder / names[0]} is missing (only safetensors are read)")


def save_pipeline(folder, pipeline: Pipeline, tokenizer, dtype=np.float16) -> None:
    """Writes a folder that `load_pipeline` and PyTorch's diffusers read, over what is there.

    `tokenizer` is a folder whose files are copied; `dtype` is float16 or float32.
    Raises ValueError, before anything is written, for a tensor that is not finite in `dtype`.
    """
    folder = Path(folder)
    configs = {name: net.config.to_dict() for name, net in pipeline.networks._asdict().items()}
    save_parts(folder, configs, pipeline.params, pipeline.scheduler, _MODEL_INDEX, dtype)
    if Path(tokenizer).resolve() != (folder / "tokenizer").resolve():
        shutil.copytree(tokenizer, folder / "tokenizer", dirs_exist_ok=True)


def save_parts(
    folder: Path, configs: dict, params: dict, scheduler: dict, index: dict, dtype=np.float16
) -> None:
    """Writes the parts that `configs` has, with the content of their config.json.

    `scheduler` and `index` go to scheduler_config.json and model_index.json.
    Raises as `save_pipeline` does.
    """
    from safetensors.numpy import save_file

    tensors = {part: _torch_tensors(params[part], _PARTS[part].prefix, dtype) for part in configs}
    for part, config in configs.items():
        _write_json(folder / part / "config.json", config)
        file = folder / part / f"{_PARTS[part].stem}.safetensors"
        save_file(tensors[part], file, metadata={"format": "pt"})
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    _write_json(folder / "model_index.json", index)


def _torch_tensors(params: dict, prefix: str, dtype) -> dict[str, np.ndarray]:
    if np.dtype(dtype) not in (np.float16, np.float32):
        raise ValueError(f"weights are written as float16 or float32, not {np.dtype(dtype)}")
    tensors = {}
    for key, (path, leaf) in keys.flatten(params, prefix).items():
        with np.errstate(over="ignore"):
            tensors[key] = keys.to_torch(path, np.asarray(leaf, np.float32)).astype(dtype)
        if not np.isfinite(tensors[key]).all():
            raise ValueError(f"tensor {key} is not finite as {np.dtype(dtype)}")
    return tensors


def _write_json(file: Path, content: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
