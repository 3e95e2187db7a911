"""Diffusers' folder layout <-> networks and parameters, by safetensors and without torch.

    folder/model_index.json
    folder/unet, vae          config.json, diffusion_pytorch_model.safetensors
    folder/text_encoder       config.json, model.safetensors
    folder/tokenizer          vocab.json, merges.txt, ...
    folder/scheduler          scheduler_config.json
Weights may also be cut into shards (an index.json names them) and be diffusers' fp16 variant.
A camera embedding lies in the unet's file as camera_embedding.linear_{1,2}.{weight,bias}, and
its width as "camera_dim" in the unet's config.json; PyTorch's diffusers ignores both.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
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
_FULL = ("{}.safetensors", "{}.safetensors.index.json")
_FP16 = (
    "{}.fp16.safetensors",
    "{}.fp16.safetensors.index.json",
    "{}.safetensors.index.fp16.json",
)
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
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
    networks = read_networks(folder, dtype)
    shapes = param_shapes(networks)
    param_dtype = jnp.dtype(dtype if param_dtype is None else param_dtype)
    params = {
        name: read_params(
            weights_file(folder, name),
            keys.flatten(shapes[name], part.prefix),
            _modern_names(part),
            param_dtype,
        )
        for name, part in _PARTS.items()
    }
    return Pipeline(networks, params, _read_json(folder / "scheduler" / "scheduler_config.json"))


def read_networks(folder: Path, dtype=jnp.float32) -> Networks:
    """The networks that a folder's config.json files describe; no weights are needed.

    Raises as `load_pipeline` does.
    """
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"{folder} is not a diffusers folder (it has no model_index.json); "
            "pass the folder that holds unet/, vae/ and text_encoder/"
        )
    configs = {part: _read_json(folder / part / "config.json") for part in _PARTS}
    try:
        return build(**configs, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def weights_names(part: str, fp16_first: bool = False) -> list[str]:
    """The names that the weights of a network, or the index of their shards, may have.

    In order of preference, relative to the pipeline's folder.
    """
    patterns = (*_FP16, *_FULL) if fp16_first else (*_FULL, *_FP16)
    return [f"{part}/{pattern.format(_PARTS[part].stem)}" for pattern in patterns]


def weights_file(folder: Path, part: str) -> Path:
    """The safetensors file, or the index of shards, of one network; full precision before fp16."""
    names = weights_names(part)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    pickles = sorted(f.name for f in (folder / part).glob("*") if f.suffix in PICKLES)
    if pickles:
        raise FileNotFoundError(
            f"{folder / part} holds {pickles[0]} but no safetensors; pickles can run code and are "
            f"not read, convert: python experiments/convert_weights.py {folder} NEW_FOLDER"
        )
    raise FileNotFoundError(f"{folder / names[0]} is missing (only safetensors are read)")


def shards(file: Path) -> dict[Path, set[str] | None]:
    """{shard: names of its tensors} of an index, {file: None} of a safetensors file.

    Raises ValueError for what is no index; whether the shards are there is not looked at.
    """
    if file.suffix != ".json":
        return {file: None}
    index = _read_json(file)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{file} has no weight_map")
    found = {}
    for name, shard in places.items():
        if Path(str(shard)).name != shard or not shard.endswith(".safetensors"):
            raise ValueError(f"{file}: {shard!r} is not the name of a safetensors file beside it")
        found.setdefault(file.parent / shard, set()).add(name)
    return found


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


def read_params(file: Path, expected: dict, names: Callable, dtype) -> dict:
    """The tree of `expected` read from safetensors of which every key and shape is checked.

    Args:
        file: one safetensors file, or the index of shards, which are opened one after another.
        expected: {key: (path, leaf with the shape in our layout)}, as from `keys.flatten`.
        names: the set of the stored names -> {key: name}; what it leaves out is not read.
        dtype: of the arrays returned.

    Raises FileNotFoundError, or ValueError for a file that cannot be read and for the first
    tensor that is missing, misshapen or too many.
    """
    shapes, places = {}, {}
    for shard, indexed in shards(file).items():
        with _opened(shard, file) as tensors:
            held = set(tensors.keys())
            if indexed is not None:
                _check_index(file, shard, indexed, held)
            for name in held:
                shapes[name], places[name] = tuple(tensors.get_slice(name).get_shape()), shard
    stored = names(set(shapes))
    _check(file, expected, {key: shapes[name] for key, name in stored.items()})
    leaves = {}
    for shard in set(places.values()):
        with _opened(shard, file) as tensors:
            for key, (path, _) in expected.items():
                if places[stored[key]] == shard:
                    tensor = tensors.get_tensor(stored[key])
                    leaves[path] = keys.from_torch(path, tensor).astype(dtype)
    return keys.unflatten(leaves)


@contextlib.contextmanager
def _opened(shard: Path, file: Path) -> Iterator:
    """An open safetensors file: `file` itself, or a shard that the index `file` names."""
    from safetensors import SafetensorError, safe_open

    if not shard.is_file():
        why = "" if shard == file else f", which {file.name} names"
        raise FileNotFoundError(f"{shard} is missing{why}")
    try:
        with safe_open(shard, framework="np") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{shard} cannot be read as safetensors: {error}") from error


def _check_index(file: Path, shard: Path, indexed: set[str], held: set[str]) -> None:
    """Raises ValueError for the first tensor of a shard on which it and its index differ."""
    for name in sorted(indexed - held):
        raise ValueError(f"{file}: tensor {name} is not in {shard.name}")
    for name in sorted(held - indexed):
        raise ValueError(f"{file}: tensor {name} of {shard.name} is not in the index")


def _modern_names(part: _Part) -> Callable:
    """The `names` of `read_params` for one network of a folder."""
    return lambda stored: {keys.modern(name): name for name in stored - part.ignored}


def _check(file: Path, expected: dict, found: dict) -> None:
    """Raises ValueError for the first tensor that does not fit."""
    for key, (path, leaf) in expected.items():
        shape = keys.torch_shape(path, leaf.shape)
        if key not in found:
            raise ValueError(f"{file}: tensor {key} {list(shape)} is missing")
        if found[key] != shape:
            raise ValueError(
                f"{file}: tensor {key} has shape {list(found[key])}, the configuration "
                f"asks for {list(shape)}"
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
