"""Pytrees of arrays in safetensors files: written whole or not at all, checked when read.

A leaf's name in the file is its path, "params/grid/table" or "opt_state/0/mu/...".
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from dsd_jax.files import atomic_path, shortened


def save_tree(path: str | Path, tree: Any, metadata: dict[str, str] | None = None) -> None:
    """Write the leaves of `tree` (arrays, or numbers) to a safetensors file.

    The file appears under its name only when complete, so an interrupted writer leaves the
    previous file as it was. Raises OSError where it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    leaves = named_leaves(jax.device_get(tree))
    arrays = {name: np.array(leaf, order="C") for name, leaf in leaves.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(arrays, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from None
        temporary.chmod(0o644)


def load_tree(path: str | Path, like: Any) -> Any:
    """Read a pytree of NumPy arrays shaped as `like` (arrays or `jax.ShapeDtypeStruct`s).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a safetensors file, or its first leaf that is missing, superfluous
            or of another shape or dtype than in `like`.
    """
    return from_named(path, load_leaves(path), like)


def load_leaves(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name. Raises as `load_tree` where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError) as error:  # a type that NumPy lacks
        said = shortened(error)
        raise ValueError(f"{path} is not a readable safetensors file: {said}") from None


def named_leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of `tree` by their paths, behind `prefix`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {prefix + _name(keys): leaf for keys, leaf in leaves}


def from_named(path: str | Path, found: dict[str, np.ndarray], like: Any) -> Any:
    """The pytree shaped as `like` whose `named_leaves` were found at `path`.

    Raises ValueError as `load_tree` does.
    """
    expected = named_leaves(like)
    _check(path, found, expected)
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in expected])


def load_metadata(path: str | Path) -> dict[str, str]:
    """The metadata that `save_tree` was given."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def _check(path, found: dict[str, np.ndarray], expected: dict[str, Any]) -> None:
    """Raise a ValueError that names the first leaf that does not fit."""
    for name in [*expected, *found]:
        if name not in found:
            raise ValueError(f"{path} lacks the tensor {name!r}")
        if name not in expected:
            held = shortened(repr(name))
            raise ValueError(f"{path} holds the tensor {held}, which nothing asks for")
        have, want = found[name], expected[name]
        if have.shape != want.shape or have.dtype != want.dtype:
            raise ValueError(
                f"{path}: {name!r} is {have.dtype}{list(have.shape)}, "
                f"not {want.dtype}{list(want.shape)}"
            )


def _name(keys) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")
