"""The reader of weight files: what it reads, and what it refuses to run."""

import collections
import io
import os
import pickle
import sys
import types

import numpy as np
import pytest

from dsd_jax.metrics import torch_file
from dsd_jax.metrics.torch_file import MAGIC, read_state_dict


class Call:
    """Pickles as a call of any global, the way an attacker would write it."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Storage(tuple):
    """Pickles as a persistent reference."""


@pytest.fixture
def torch_names(monkeypatch):
    """Stand-ins for the names that a real file refers to, so that pickling finds them."""

    def rebuild(*_):
        raise AssertionError("the writer's function must not run")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    storage = type("FloatStorage", (), {"__module__": "torch"})
    half = type("HalfStorage", (), {"__module__": "torch"})
    torch = types.ModuleType("torch")
    torch.FloatStorage, torch.HalfStorage = storage, half
    utils = types.ModuleType("torch._utils")
    utils._rebuild_tensor_v2 = rebuild
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return rebuild, storage, half


def write(path, state, storages):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return tuple(value) if isinstance(value, Storage) else None

    with open(path, "wb") as file:
        for header in (MAGIC, 1001, {"little_endian": True}):
            pickle.dump(header, file, protocol=2)
        Pickler(file, protocol=2).dump(state)
        pickle.dump(list(storages), file, protocol=2)
        for data in storages.values():
            file.write(len(data).to_bytes(8, "little") + data.tobytes())
    return path


def tensor(names, key, size, offset, shape, strides, storage=None):
    rebuild, floats, _ = names
    reference = Storage(("storage", storage or floats, key, "cpu", size, None))
    return Call(rebuild, reference, offset, shape, strides, False, collections.OrderedDict())


def test_reads_strided_tensors(tmp_path, torch_names):
    data = np.arange(12, dtype=np.float32)
    state = collections.OrderedDict(
        transposed=tensor(torch_names, "7", 12, 0, (3, 4), (1, 3)),
        tail=tensor(torch_names, "7", 12, 10, (2,), (1,)),
        scalar=tensor(torch_names, "7", 12, 5, (), ()),
    )
    read = read_state_dict(write(tmp_path / "w.pth", state, {"7": data}))
    np.testing.assert_array_equal(read["transposed"], data.reshape(4, 3).T)
    np.testing.assert_array_equal(read["tail"], [10, 11])
    assert read["scalar"] == 5 and read["scalar"].shape == ()


@pytest.mark.parametrize(
    "call",
    [
        Call(os.system, "touch pwned"),
        Call(eval, "open('pwned', 'w')"),
        Call(getattr, "text", "format"),
    ],
)
def test_refuses_foreign_globals_and_runs_nothing(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "w.pth", collections.OrderedDict(weight=call), {})
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        read_state_dict(path)
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


def test_refuses_other_storages_and_dotted_names(tmp_path, torch_names):
    state = collections.OrderedDict(
        w=tensor(torch_names, "0", 1, 0, (1,), (1,), storage=torch_names[2])
    )
    with pytest.raises(pickle.UnpicklingError, match=r"torch\.HalfStorage: refused"):
        read_state_dict(write(tmp_path / "half.pth", state, {"0": np.zeros(1, np.float32)}))
    unpickler = torch_file._Unpickler(io.BytesIO())
    with pytest.raises(pickle.UnpicklingError):
        unpickler.find_class("collections", "OrderedDict.fromkeys")


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5,), (1,)), (1, (2, 2), (2, 1)), (-1, (2,), (1,)), (3, (2,), (-1,)), (0, (2, 2), (1,))],
)
def test_refuses_windows_outside_the_storage(tmp_path, torch_names, offset, shape, strides):
    state = collections.OrderedDict(w=tensor(torch_names, "0", 4, offset, shape, strides))
    path = write(tmp_path / "w.pth", state, {"0": np.zeros(4, np.float32)})
    with pytest.raises(ValueError, match="tensor"):
        read_state_dict(path)


def test_refuses_cut_files_and_zips(tmp_path, torch_names):
    state = collections.OrderedDict(w=tensor(torch_names, "0", 4, 0, (4,), (1,)))
    path = write(tmp_path / "w.pth", state, {"0": np.zeros(4, np.float32)})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="cut short"):
        read_state_dict(path)
    path.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(ValueError, match="zip"):
        read_state_dict(path)
