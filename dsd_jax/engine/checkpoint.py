"""Checkpoints: the stacked states of a chunk of seeds, written by Orbax while the run goes on.

    checkpoints/seeds_0_x4_1a2b3c4d/37/     after step 37 of that chunk

A checkpoint appears under its name when it is whole, and holds checksums: of one that was damaged
since the one before is taken. It is read seed by seed, so that a run can go
on with other chunks, on other devices. A run cut off at a checkpoint and resumed from it in the
same chunks is the unbroken run, bit for bit on a CPU.

Letters: c seeds a chunk.
"""

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax import pytrees
from dsd_jax.engine import checksum, hosts
from dsd_jax.engine.lost import DIVERGED
from dsd_jax.files import config_hash
from dsd_jax.recipe.state import State, without_ode

_STATES, _METRICS, _ITEM = "states/", "metrics/", "chunk"
_CHECKSUMS, _CHECKSUM = "checksums", "checksum"
# (states [c, ...], metrics [c] each) -> None
Save = Callable[[State, dict[str, Any]], None]


class Saved(NamedTuple):
    """One seed as it was written.

    Attributes:
        state: without leading axis, of NumPy arrays.
        metrics: of the last steps before it.
        length: c of its chunk.
        devices: over how many the chunk was spread.
        diverged: after how many steps its numbers were found to be no longer finite; 0: they are.
    """

    state: State
    metrics: dict[str, float]
    length: int
    devices: int
    diverged: int = 0

    @property
    def step(self) -> int:
        return int(self.state.step)


def folder_of(folder: str | Path, chunk: list[int]) -> Path:
    """Where the states of these seeds live: named by their first, their number and a hash."""
    return Path(folder).absolute() / f"seeds_{chunk[0]}_x{len(chunk)}_{config_hash(chunk)}"


@contextmanager
def writer(
    folder: str | Path | None, chunk: list[int], devices: int = 1, reached: int | None = None
) -> Iterator[Save]:
    """A function that writes a chunk's states in the background; at the end all is written.

    The last two checkpoints are kept. Without a folder nothing is written. All processes call it
    together.

    Args:
        reached: steps that the chunk goes on from: what is there of later ones could not be read.

    Raises:
        OSError: a checkpoint cannot be written; in one line. Those before it stay.
    """
    if folder is None:
        yield lambda states, metrics: None
        return
    path = folder_of(folder, chunk)
    from orbax.checkpoint import args

    with _writing(path):
        manager = _manager(path)
        for step in manager.all_steps():
            if reached is not None and step > reached:
                manager.delete(step)

    def save(states: State, metrics: dict[str, Any]) -> None:
        step = int(hosts.own_rows(states.step)[0])
        if step in manager.all_steps():
            return
        tree, checksums = _copied(states)
        numbers = {_METRICS + name: np.asarray(value) for name, value in metrics.items()}
        numbers["devices"] = np.array([devices])
        tree |= numbers | {_CHECKSUMS: checksums, _CHECKSUM: checksum.of_numbers(numbers)}
        with _writing(path):
            manager.save(step, args=args.Composite(**{_ITEM: args.PyTreeSave(tree)}))

    try:
        yield save
        with _writing(path):
            manager.wait_until_finished()
    finally:
        with suppress(Exception):  # said already
            manager.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Whatever Orbax raises is an OSError of one line."""
    try:
        yield
    except Exception as error:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # which tells of each array
        raise OSError(f"{path}: no checkpoint can be written: {_reason(error)}") from error


def _reason(error: BaseException | None) -> str:
    """What the system said, first."""
    first = str(error)
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        error = error.__cause__ or error.__context__
    full = os.strerror(errno.ENOSPC)
    return full if full in first else " ".join(first.split())[:300]


def load(folder: str | Path, like: State) -> dict[int, Saved]:
    """Each seed that has a checkpoint, where it was furthest.

    Args:
        like: one seed's state, or its `jax.ShapeDtypeStruct`s.

    Of a chunk whose last checkpoint is damaged the one before is taken, which is said.

    Raises:
        ValueError: no checkpoint of a chunk can be read, or one is of other settings; says where.
    """
    found: dict[int, Saved] = {}
    for chunk in sorted(Path(folder).absolute().glob("seeds_*_x*")):
        for seed, saved in _newest(chunk, like).items():
            if seed not in found or found[seed].step < saved.step:
                found[seed] = saved
    return found


def metrics_of(chunk: list[int], saved: Mapping[int, Saved]) -> dict[str, np.ndarray]:
    """The metrics [c] that were saved of a chunk's seeds; nothing where there is no checkpoint."""
    names = saved[chunk[0]].metrics if saved else ()
    return {
        name: np.array([saved[seed].metrics[name] for seed in chunk], np.float32) for name in names
    }


def _newest(chunk: Path, like: State) -> dict[int, Saved]:
    """The seeds of a chunk's last checkpoint that can be read."""
    steps = [int(path.name) for path in chunk.iterdir() if path.name.isdigit()]
    for step in sorted(steps, reverse=True):
        try:
            return _read(chunk / str(step), like)
        except ValueError as error:
            if step == min(steps):
                raise ValueError(f"{error}; --no-resume starts afresh") from None
            said = " ".join(str(error).split())
            print(f"warning: {said}; the one before it is taken", file=sys.stderr)
    return {}


def _read(path: Path, like: State) -> dict[int, Saved]:
    """The seeds of one checkpoint."""
    import orbax.checkpoint as ocp

    _quiet()
    try:
        reader = ocp.PyTreeCheckpointer()
        about: Any = reader.metadata(path / _ITEM).item_metadata
        as_numpy = dict.fromkeys(about.tree, ocp.RestoreArgs(restore_type=np.ndarray))
        tree = reader.restore(path / _ITEM, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
        _check(tree)
    except Exception as error:  # of many kinds, where a file is damaged
        raise ValueError(f"{path} cannot be read: {error}") from error
    devices = int(tree.pop("devices")[0])
    gone_at = tree.pop(_METRICS + DIVERGED, np.zeros(len(tree[_STATES + "seed"])))
    metrics = {k.removeprefix(_METRICS): v for k, v in tree.items() if k.startswith(_METRICS)}
    leaves = {k.removeprefix(_STATES): v for k, v in tree.items() if k.startswith(_STATES)}
    seeds = leaves["seed"].tolist()
    c = len(seeds)
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((c, *leaf.shape), leaf.dtype), like)
    states = pytrees.from_named(path, leaves, stacked)
    return {
        seed: Saved(
            jax.tree.map(lambda leaf, i=i: leaf[i], states),
            {name: float(values[i]) for name, values in metrics.items()},
            c,
            devices,
            int(gone_at[i]),
        )
        for i, seed in enumerate(seeds)
    }


def _check(tree: dict[str, Any]) -> None:
    """Take the checksums out of what was read. Raises ValueError where they are others."""
    kept = tree.pop(_CHECKSUMS), tree.pop(_CHECKSUM)
    states = {name: leaf for name, leaf in tree.items() if name.startswith(_STATES)}
    numbers = {name: leaf for name, leaf in tree.items() if name not in states}
    found = _checksums(states), checksum.of_numbers(numbers)
    if not all(np.array_equal(a, b) for a, b in zip(kept, found, strict=True)):
        raise ValueError("its numbers are not those that were written")


_checksums = jax.jit(checksum.of_rows)


@jax.jit
def _copied(states: State) -> tuple[dict[str, jax.Array], jax.Array]:
    """The leaves by name, and their checksums.

    Copies: the run's next step is given the states' own memory while they are being written.
    """
    copies = jax.tree.map(jnp.copy, without_ode(states))
    leaves = pytrees.named_leaves(copies, _STATES)
    return leaves, checksum.of_rows(leaves)


def _manager(folder: Path):
    import orbax.checkpoint as ocp

    _quiet()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2, create=True, cleanup_tmp_directories=True, enable_async_checkpointing=True
    )
    return ocp.CheckpointManager(folder, options=options)


def _quiet() -> None:
    """Orbax logs what it does as warnings; errors are raised besides.

    After one its threads find their event loop closed, and Python would show that of each.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    if sys.unraisablehook is not _unraisable:
        _usual.append(sys.unraisablehook)
        sys.unraisablehook = _unraisable


_usual: list[Callable[[Any], Any]] = []


def _unraisable(about: Any) -> None:
    if str(about.exc_value) != "Event loop is closed":
        _usual[-1](about)
