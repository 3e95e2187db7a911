"""Diffusers' folder layout <-> networks and parameters, by safetensors and without torch.

    folder/model_index.json
    folder/unet, vae          config.json, diffusion_pytorch_model.safetensors
    folder/text_encoder       config.json, model.safetensors
    folder/tokenizer          vocab.json, merges.txt, ...
    folder/scheduler          scheduler_config.json
A camera embedding lies in the unet's file as camera_embedding.linear_{1,2}.{weight,bias}, and
its width as "camera_dim" in the unet's config.json; PyTorch's diffusers ignores both.
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dsd_jax.models import keys
from dsd_jax.models.networks import Networks, build, param_shapes


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
}
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
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"{folder} is not a diffusers folder (it has no model_index.json); "
            "pass the folder that holds unet/, vae/ and text_encoder/"
        )
    configs = {part: _read_json(folder / part / "config.json") for part in _PARTS}
    try:
        networks = build(**configs, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    shapes = param_shapes(networks)
    param_dtype = jnp.dtype(dtype if param_dtype is None else param_dtype)
    params = {
        name: _read_params(_weights_file(folder / name, part.stem), part, shapes[name], param_dtype)
        for name, part in _PARTS.items()
    }
    return Pipeline(networks, params, _read_json(folder / "scheduler" / "scheduler_config.json"))


def save_pipeline(folder, pipeline: Pipeline, tokenizer, dtype=np.float16) -> None:
    """Writes a folder that `load_pipeline` and PyTorch's diffusers read, over what is there.

    `tokenizer` is a folder whose files are copied; `dtype` is float16 or float32.
    Raises ValueError, before anything is written, for a tensor that is not finite in `dtype`.
    """
    folder = Path(folder)
    tensors = {
        name: _torch_tensors(pipeline.params[name], part.prefix, dtype)
        for name, part in _PARTS.items()
    }
    from safetensors.numpy import save_file

    for name, part in _PARTS.items():
        config = getattr(pipeline.networks, name).config.to_dict()
        _write_json(folder / name / "config.json", config)
        file = folder / name / f"{part.stem}.safetensors"
        save_file(tensors[name], file, metadata={"format": "pt"})
    _write_json(folder / "scheduler" / "scheduler_config.json", pipeline.scheduler)
    _write_json(folder / "model_index.json", _MODEL_INDEX)
    if Path(tokenizer).resolve() != (folder / "tokenizer").resolve():
        shutil.copytree(tokenizer, folder / "tokenizer", dirs_exist_ok=True)


def _read_params(file: Path, part: _Part, shapes: dict, dtype) -> dict:
    """The tree of `shapes` filled from a safetensors file whose every key and shape is checked."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as tensors:
            stored = set(tensors.keys()) - part.ignored
            names = {keys.modern(name): name for name in stored}
            found = {key: tensors.get_slice(name).get_shape() for key, name in names.items()}
            expected = keys.flatten(shapes, part.prefix)
            _check(file, expected, {key: tuple(shape) for key, shape in found.items()})
            leaves = {
                path: keys.from_torch(path, tensors.get_tensor(names[key])).astype(dtype)
                for key, (path, _) in expected.items()
            }
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read as safetensors: {error}") from error
    return keys.unflatten(leaves)


def _check(file: Path, expected: dict, found: dict) -> None:
    """Raises ValueError for the first tensor that does not fit."""
    for key, (path, leaf) in expected.items():
        shape = keys.torch_shape(path, leaf.shape)
        if key not in found:
            raise ValueError(f"{file}: tensor {key} {list(shape)} is missing")
        if found[key] != shape:
            raise ValueError(
                f"{file}: tensor {key} has shape {list(found[key])}, config.json asks for "
                f"{list(shape)}"
            )
    for key in sorted(found):
        if key not in expected:
            raise ValueError(f"{file}: tensor {key} {list(found[key])} has no place in the model")


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


def _weights_file(folder: Path, stem: str) -> Path:
    """The file of one network: full precision if it is there, else diffusers' fp16 variant."""
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder / stem}.safetensors is missing (only safetensors are read)")


def _read_json(file: Path) -> dict:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing")
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None


def _write_json(file: Path, content: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
