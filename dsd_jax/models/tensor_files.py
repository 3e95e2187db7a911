"""Safetensors, whole or in shards, of which every tensor is checked against what is expected."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsd_jax.models import foreign, keys
from dsd_jax.models.entries import shown

PICKLES = (".bin", ".ckpt", ".pt", ".pth")

Shape = tuple[int, ...]

_READ = ("F64", "F32", "F16", "BF16")  # types of safetensors
_MAX_JSON = 2**25  # bytes


class _Stored(NamedTuple):
    """Where a tensor lies, its shape, and its type as safetensors call it."""

    shard: Path
    shape: Shape
    kind: str


def read_params(file: Path, expected: dict, names: Callable, dtype) -> dict:
    """The tree of `expected` read from safetensors of which every key and shape is checked.

    Args:
        file: one safetensors file, or the index of shards, which are opened one after another.
        expected: {key: (path, leaf with the shape in our layout)}, as from `keys.flatten`.
        names: the set of the stored names -> {key: name}; what it leaves out is not read.
        dtype: of the arrays returned.

    Raises FileNotFoundError, or ValueError for a file that cannot be read or is something else, and
    for the first tensor that is missing, misshapen, too many, of a type that is no number here, or
    not finite.
    """
    places = _stored(file)
    stored = names(set(places))
    if expected and not any(key in stored for key in expected):
        what = foreign.layout(places) or "another model's"
        wanted = next(iter(expected))
        raise ValueError(f"{file} is {what}: it has none of the tensors needed, such as {wanted}")
    check(
        file,
        {key: keys.torch_shape(path, leaf.shape) for key, (path, leaf) in expected.items()},
        {key: places[name].shape for key, name in stored.items()},
    )
    for key in expected:
        _check_kind(file, stored[key], places[stored[key]].kind)
    leaves = {}
    for shard in {place.shard for place in places.values()}:
        with _opened(shard, file) as tensors:
            for key, (path, _) in expected.items():
                if places[stored[key]].shard == shard:
                    tensor = keys.from_torch(path, tensors.get_tensor(stored[key]))
                    leaves[path] = _finite(shard, stored[key], tensor, dtype)
    return keys.unflatten(leaves)


def _check_kind(file: Path, name: str, kind: str) -> None:
    """Raises ValueError for a type of tensor that is not read."""
    if kind not in _READ:
        raise ValueError(
            f"{file}: tensor {name} is stored as {kind}, which is not read, only "
            f"{', '.join(_READ)}: take the model's weights in one of these"
        )


def _finite(file: Path, name: str, tensor: np.ndarray, dtype) -> np.ndarray:
    """`tensor` as `dtype`. Raises ValueError where it is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = tensor.astype(dtype)
    if not np.isfinite(found).all():
        why = "is damaged: fetch or make the file again"
        if np.isfinite(tensor).all():
            why = f"does not fit into {np.dtype(dtype)}: compute in float32 or bfloat16"
        raise ValueError(f"{file}: tensor {name} holds NaN or infinite numbers and {why}")
    return found


def stored_shapes(file: Path) -> dict[str, Shape]:
    """{name: shape} of all tensors of a safetensors file, or of the shards of an index.

    Reads headers only. Raises as `read_params` does.
    """
    return {name: place.shape for name, place in _stored(file).items()}


def stored_metadata(file: Path) -> dict[str, str]:
    """What a safetensors file says of itself. Raises as `read_params` does."""
    with _opened(file, file) as tensors:
        return tensors.metadata() or {}


def check(place, expected: dict[str, Shape], found: dict[str, Shape]) -> None:
    """Raises ValueError, with `place` before it, for the first tensor that does not fit.

    A missing or misshapen tensor goes before one that has no place.
    """
    for name, shape in expected.items():
        if name not in found:
            raise ValueError(f"{place}: tensor {name:.200} {list(shape)} is missing")
        if found[name] != shape:
            raise ValueError(
                f"{place}: tensor {name:.200} has shape {shown(list(found[name]))}, the "
                f"configuration asks for {list(shape)}"
            )
    for name in sorted(found):
        if name not in expected:
            raise ValueError(
                f"{place}: tensor {name:.200} {shown(list(found[name]))} has no place in the model"
            )


def shards(file: Path) -> dict[Path, set[str] | None]:
    """{shard: names of its tensors} of an index, {file: None} of a safetensors file.

    Raises ValueError for what is no index; whether the shards are there is not looked at.
    """
    if file.suffix != ".json":
        return {file: None}
    index = read_json(file)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{file} has no weight_map")
    found = {}
    for name, shard in places.items():
        if not isinstance(shard, str) or Path(shard).name != shard or shard[-12:] != ".safetensors":
            raise ValueError(
                f"{file}: {shown(shard)} is not the name of a safetensors file beside it"
            )
        found.setdefault(file.parent / shard, set()).add(name)
    return found


def read_json(file: Path) -> dict:
    """The named entries of a JSON file.

    Raises FileNotFoundError, or ValueError for what is not JSON, or holds no named entries.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing")
    try:
        what, large = foreign.beginning(file), file.stat().st_size > _MAX_JSON
        raw = b"" if what or large else file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if what or large:
        raise ValueError(f"{file} is {what or f'no configuration: more than {_MAX_JSON} bytes'}")
    try:
        content = json.loads(raw)
    except RecursionError:
        raise ValueError(f"{file} is no configuration: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} has to hold named entries, got {shown(content)}")
    return content


def _stored(file: Path) -> dict[str, _Stored]:
    """{name: where and what it is} of every tensor."""
    places = {}
    for shard, indexed in shards(file).items():
        with _opened(shard, file) as tensors:
            held = set(tensors.keys())
            if indexed is not None:
                _check_index(file, shard, indexed, held)
            for name in held:
                found = tensors.get_slice(name)
                places[name] = _Stored(shard, tuple(found.get_shape()), found.get_dtype())
    return places


@contextlib.contextmanager
def _opened(shard: Path, file: Path) -> Iterator:
    """An open safetensors file: `file` itself, or a shard that the index `file` names."""
    import ml_dtypes  # noqa: F401  (NumPy then knows bfloat16)
    from safetensors import SafetensorError, safe_open

    if not shard.is_file():
        why = "" if shard == file else f", which {file.name} names"
        raise FileNotFoundError(f"{shard} is missing{why}")
    try:
        with safe_open(shard, framework="np") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        what = foreign.beginning(shard)
        if what is not None:
            raise ValueError(f"{shard} is {what}") from error
        why = " ".join(f"{error!s:.200}".split())
        raise ValueError(f"{shard} cannot be read as safetensors: {why}") from error


def _check_index(file: Path, shard: Path, indexed: set[str], held: set[str]) -> None:
    """Raises ValueError for the first tensor of a shard on which it and its index differ."""
    for name in sorted(indexed - held):
        raise ValueError(f"{file}: tensor {name:.200} is not in {shard.name}")
    for name in sorted(held - indexed):
        raise ValueError(f"{file}: tensor {name:.200} of {shard.name} is not in the index")
