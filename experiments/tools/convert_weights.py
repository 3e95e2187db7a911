"""Rewrite PyTorch's pickled weights as safetensors, which are read without PyTorch and run no code.

    python experiments/tools/convert_weights.py model.ckpt model.safetensors
    python experiments/tools/convert_weights.py stable-diffusion stable-diffusion-safe

A file keeps its names, shapes and types; a {"state_dict": ...} around the tensors is taken off, and
what is no tensor is left out. Of a folder in diffusers layout every .bin file becomes .safetensors
(with its index, if there are shards); JSON, text and safetensors are copied, and nothing else is.
Needs the extra `parity` for PyTorch. Pickles are opened with weights_only: one that holds anything
but tensors and plain values is refused.
"""

import dataclasses
import json
import pickle
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import tyro

from dsd_jax.cli import flags
from dsd_jax.files import atomic_path

# Classes that training code of Lightning names as keys of a checkpoint's "callbacks".
_CALLBACKS = tuple(
    f"{package}.callbacks.model_checkpoint.ModelCheckpoint"
    for package in ("pytorch_lightning", "lightning.pytorch")
)
_COPIED = (".json", ".txt", ".safetensors")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rewrite PyTorch's pickled weights as safetensors."""

    source: tyro.conf.Positional[Path]
    """A .bin, .ckpt, .pt or .pth file, or a folder with .bin files in diffusers layout."""
    out: tyro.conf.Positional[Path]
    """The .safetensors file, or the folder, to write."""


def main(settings: Settings) -> None:
    """Convert a file or a folder; one line a file that is written.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a name that does not fit, or a file that is not read.
        ImportError: PyTorch is not installed.
    """
    source, out = settings.source, settings.out
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    if source.is_dir():
        convert_folder(source, out)
    elif source.suffix == ".safetensors":
        raise ValueError(f"{source} is safetensors already")
    elif out.suffix != ".safetensors":
        raise ValueError(f"the file to write has to end in .safetensors, not {out.name!r}")
    else:
        convert_file(source, out)


def convert_folder(source: Path, out: Path) -> None:
    """Convert the .bin files of a folder and below, and copy what else belongs to a pipeline.

    A .bin file is left out if there is a .safetensors file in its place.
    """
    names = [f.relative_to(source) for f in sorted(source.rglob("*")) if f.is_file()]
    files = [source / name for name in names if not any(p.startswith(".") for p in name.parts)]
    if not any(f.suffix == ".bin" for f in files):
        raise ValueError(f"{source} holds no .bin file")
    _torch()
    for file in files:
        target = out / file.relative_to(source).with_name(converted_name(file.name))
        if file.suffix == ".bin" and not file.with_name(target.name).exists():
            convert_file(file, target)
        elif ".bin.index." in file.name:
            _convert_index(file, target)
        elif file.suffix in _COPIED and not (target.exists() and target.samefile(file)):
            with atomic_path(target) as temporary:
                shutil.copyfile(file, temporary)


def convert_file(source: Path, out: Path) -> None:
    """Write the tensors of a pickle as safetensors."""
    tensors = plain_tensors(load_pickle(source), source)
    from safetensors.torch import save_file

    with atomic_path(out) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    print(f"{out}: {len(tensors)} tensors, {out.stat().st_size / 2**30:.2f} GiB")


def converted_name(name: str) -> str:
    """The safetensors name of a .bin file or of its index; other names stay.

    "pytorch_model-00001-of-00002.bin" -> "model-00001-of-00002.safetensors", as transformers has it
    """
    if not (name.endswith(".bin") or ".bin.index." in name):
        return name
    return re.sub(r"\.bin(?=$|\.index\.)", ".safetensors", name.removeprefix("pytorch_"))


class _Nothing:
    """Stands for a class that a checkpoint only names, so that none of its code is loaded."""


def load_pickle(file: Path):
    """What torch.save wrote, on the CPU, if it is plain data.

    Raises ValueError for a file that is not, or that PyTorch cannot read.
    """
    torch = _torch()
    harmless: list[Any] = [(_Nothing, name) for name in _CALLBACKS]
    try:
        with torch.serialization.safe_globals(harmless):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it holds a {foreign[1]}, which could run code" if foreign else "is it complete?"
        raise ValueError(f"{file} cannot be read as plain tensors: {why}") from error


def plain_tensors(content, file: Path) -> dict:
    """The named tensors of a state dict, contiguous, each with a memory of its own.

    Raises ValueError when there are none.
    """
    torch = _torch()
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    tensors, seen = {}, set()
    for name, value in content.items() if isinstance(content, dict) else ():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            continue
        tensor = value.detach().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    if not tensors:
        raise ValueError(f"{file} holds no named tensors")
    return tensors


def _convert_index(file: Path, target: Path) -> None:
    """The index of shards, with the shards' new names."""
    try:
        index = json.loads(file.read_text())
        places = {name: converted_name(shard) for name, shard in index["weight_map"].items()}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file} is not an index of shards") from None
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps({**index, "weight_map": places}, indent=2) + "\n")


def _torch():
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            "pickles are read by PyTorch, which is not installed: pip install '.[parity]'"
        ) from None
    return torch


if __name__ == "__main__":
    try:
        main(flags.cli(Settings, None, __doc__))
    except (ValueError, FileNotFoundError, ImportError) as error:
        sys.exit(f"error: {error}")
