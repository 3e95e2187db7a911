"""Safetensors, whole or in shards, of which every tensor is checked against what is expected."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from dsd_jax.models import keys

PICKLES = (".bin", ".ckpt", ".pt", ".pth")

Shape = tuple[int, ...]


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
    places = _stored(file)
    stored = names(set(places))
    check(
        file,
        {key: keys.torch_shape(path, leaf.shape) for key, (path, leaf) in expected.items()},
        {key: places[name][1] for key, name in stored.items()},
    )
    leaves = {}
    for shard in {shard for shard, _ in places.values()}:
        with _opened(shard, file) as tensors:
            for key, (path, _) in expected.items():
                if places[stored[key]][0] == shard:
                    tensor = tensors.get_tensor(stored[key])
                    leaves[path] = keys.from_torch(path, tensor).astype(dtype)
    return keys.unflatten(leaves)


def stored_shapes(file: Path) -> dict[str, Shape]:
    """{name: shape} of all tensors of a safetensors file, or of the shards of an index.

    Reads headers only. Raises as `read_params` does.
    """
    return {name: shape for name, (_, shape) in _stored(file).items()}


def check(place, expected: dict[str, Shape], found: dict[str, Shape]) -> None:
    """Raises ValueError, with `place` before it, for the first tensor that does not fit.

    A missing or misshapen tensor goes before one that has no place.
    """
    for name, shape in expected.items():
        if name not in found:
            raise ValueError(f"{place}: tensor {name} {list(shape)} is missing")
        if found[name] != shape:
            raise ValueError(
                f"{place}: tensor {name} has shape {list(found[name])}, the configuration "
                f"asks for {list(shape)}"
            )
    for name in sorted(found):
        if name not in expected:
            raise ValueError(
                f"{place}: tensor {name} {list(found[name])} has no place in the model"
            )


def shards(file: Path) -> dict[Path, set[str] | None]:
    """{shard: names of its tensors} of an index, {file: None} of a safetensors file.

    Raises ValueError for what is no index; whether the shards are there is not looked at.
    """
    if file.suffix != ".json":
        return {file: None}
    index = read_json(file)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{file} has no weight_map")
    found = {}
    for name, shard in places.items():
        if Path(str(shard)).name != shard or not shard.endswith(".safetensors"):
            raise ValueError(f"{file}: {shard!r} is not the name of a safetensors file beside it")
        found.setdefault(file.parent / shard, set()).add(name)
    return found


def read_json(file: Path):
    """The content of a JSON file. Raises FileNotFoundError, or ValueError for what is not JSON."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing")
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None


def _stored(file: Path) -> dict[str, tuple[Path, Shape]]:
    """{name: (shard, shape)} of every tensor."""
    places = {}
    for shard, indexed in shards(file).items():
        with _opened(shard, file) as tensors:
            held = set(tensors.keys())
            if indexed is not None:
                _check_index(file, shard, indexed, held)
            for name in held:
                places[name] = shard, tuple(tensors.get_slice(name).get_shape())
    return places


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
