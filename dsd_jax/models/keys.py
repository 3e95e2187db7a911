"""PyTorch's names and layouts of parameters, and ours: the only place that knows both.

    name     a trailing _N of a path segment is .N in PyTorch (but linear_1 is linear_1);
             kernel, scale and embedding are all called weight there
    layout   convolutions HWIO are OIHW there, linear layers [in, out] are [out, in]
Everything is NumPy.
"""

import re

import numpy as np
from flax import traverse_util

_LITERAL = ("linear_1", "linear_2")
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}  # {axes: their order there}, of kernels
_WEIGHT = ("kernel", "scale", "embedding")
# Older files name the projections of a VAE's attention like this.
_OLD_VAE = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

Path = tuple[str, ...]


def torch_key(path: Path) -> str:
    """("mid_block", "resnets_0", "conv1", "kernel") -> "mid_block.resnets.0.conv1.weight"."""
    *modules, leaf = path
    names = [m if m in _LITERAL else re.sub(r"_(\d+)$", r".\1", m) for m in modules]
    return ".".join([*names, "weight" if leaf in _WEIGHT else leaf])


def to_torch(path: Path, array: np.ndarray) -> np.ndarray:
    """Our layout -> PyTorch's, contiguous."""
    if path[-1] == "kernel":
        array = array.transpose(_TO_TORCH[array.ndim])
    return np.ascontiguousarray(array)


def from_torch(path: Path, array: np.ndarray) -> np.ndarray:
    """PyTorch's layout -> ours, contiguous."""
    if path[-1] == "kernel":
        array = array.transpose((2, 3, 1, 0) if array.ndim == 4 else (1, 0))
    return np.ascontiguousarray(array)


def torch_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that an array of `shape` in our layout has in PyTorch's."""
    if path[-1] == "kernel":
        return tuple(shape[axis] for axis in _TO_TORCH[len(shape)])
    return tuple(shape)


def modern(key: str) -> str:
    """A key of any age -> the name it has today (old VAE attention projections)."""
    head, _, rest = key.partition(".attentions.")
    parts = rest.split(".")
    if len(parts) == 3 and parts[1] in _OLD_VAE:
        return f"{head}.attentions.{parts[0]}.{_OLD_VAE[parts[1]]}.{parts[2]}"
    return key


def flatten(tree: dict, prefix: str = "") -> dict[str, tuple[Path, object]]:
    """{PyTorch key: (path, leaf)} of a tree of parameters, in order of the keys."""
    flat = traverse_util.flatten_dict(tree)
    keyed = {prefix + torch_key(path): (path, leaf) for path, leaf in flat.items()}
    return {key: keyed[key] for key in sorted(keyed)}


def unflatten(leaves: dict[Path, np.ndarray]) -> dict:
    """{path: array} -> tree of parameters."""
    return traverse_util.unflatten_dict(leaves)
