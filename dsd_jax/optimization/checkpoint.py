"""Checkpoints: the stacked states of one chunk of seeds as one safetensors file.

A run cut off at a checkpoint and resumed from it is the unbroken run, bit for bit on a CPU.
"""

from pathlib import Path

import jax

from dsd_jax.optimization.state import State
from dsd_jax.pytrees import load_tree, save_tree


def path_of(folder: str | Path, chunk: list[int]) -> Path:
    """Where the states of these seeds live: named by their first seed and their number."""
    return Path(folder) / f"seeds_{chunk[0]}_x{len(chunk)}.safetensors"


def save(folder: str | Path, chunk: list[int], states: State) -> None:
    """Write the states [n, ...] of a chunk; the checkpoint before stays until this one is whole."""
    path = path_of(folder, chunk)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tree(path, states)


def load(folder: str | Path, chunk: list[int], like: State) -> State | None:
    """The states of a chunk, or None if it has no checkpoint.

    Args:
        like: states of that chunk or their `jax.ShapeDtypeStruct`s.

    Raises:
        ValueError: the file is of other seeds or settings; says where.
    """
    path = path_of(folder, chunk)
    if not path.exists():
        return None
    states = jax.tree.map(jax.numpy.asarray, load_tree(path, like))
    if states.seed.tolist() != chunk:
        raise ValueError(f"{path} holds other seeds than {chunk}; remove it to start afresh")
    return states
