"""Several processes that run one program together: a TPU pod slice, Slurm's tasks, or one machine.

Every process runs the same commands in the same order, on arrays that are spread over the devices
of all. What a process decides by itself (its clock, a signal) is agreed on first. With one process
nothing here communicates.

Letters: n rows (seeds) in all, m rows on the devices of this process, p processes.
"""

import contextlib
import re
import socket
import time
import zlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Float

from dsd_jax.files import shortened

FLAGS = "--coordinator HOST:PORT --process-id I --processes N"


def start(coordinator: str = "", process_id: str = "", processes: str = "") -> None:
    """Join the other processes, before JAX is first used.

    Args:
        coordinator: HOST:PORT of process 0, with the other two as typed; all empty, what JAX finds
            out by itself on a TPU pod slice, under Slurm, Open MPI or Kubernetes.

    Raises:
        ValueError: the flags make no sense, or nothing was found out, or the others did not come.
    """
    given = [coordinator, process_id, processes]
    if any(given) and not all(given):
        raise ValueError(f"--distributed needs all of {FLAGS}, or none of them")
    explicit: dict[str, Any] = {}
    if coordinator:
        explicit = _checked(coordinator, process_id, processes)
    try:
        jax.distributed.initialize(**explicit)
    except (ValueError, RuntimeError) as error:
        mend = "see --coordinator" if coordinator else f"say who takes part: {FLAGS}"
        raise ValueError(f"--distributed: {error}; {mend}") from None


def _checked(coordinator: str, process_id: str, processes: str) -> dict[str, Any]:
    """The arguments of `jax.distributed.initialize`."""
    host, _, port = coordinator.rpartition(":")
    if not _HOST.fullmatch(host) or not _is_whole(port, 1, 2**16 - 1):
        raise ValueError(
            f"--coordinator {shortened(repr(coordinator), 80)} is not HOST:PORT, such as "
            "10.0.0.1:1234, with a port from 1 to 65535"
        )
    if not _is_whole(processes, 1, _MOST):
        said = shortened(repr(processes), 80)
        raise ValueError(f"--processes must be a number from 1 to {_MOST}, not {said}")
    if not _is_whole(process_id, 0, int(processes) - 1):
        said = shortened(repr(process_id), 80)
        raise ValueError(f"--process-id must be 0 to {int(processes) - 1}, not {said}")
    if int(process_id) == 0:
        _check_free(int(port))
    return {
        "coordinator_address": coordinator,
        "process_id": int(process_id),
        "num_processes": int(processes),
    }


def _check_free(port: int) -> None:
    """Refuse a port at which process 0, this one, cannot listen: JAX would end without a word."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError as error:
            raise ValueError(
                f"--coordinator: port {port}: {error.strerror}; give another"
            ) from None


def _is_whole(text: str, least: int, most: int) -> bool:
    """Whether a text is a whole number between two others."""
    return bool(_DIGITS.fullmatch(text)) and least <= int(text) <= most


# A name or address, of IPv6 in brackets; and the most processes.
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+(%\w+)?\]")
_DIGITS, _MOST = re.compile(r"[0-9]{1,9}"), 100_000


def loading_place(shard_prior: int):
    """Context in which weights are loaded: to the host where they may have to be split.

    Args:
        shard_prior: as in `text_to_3d.make_plan`.
    """
    several = shard_prior != 1 and jax.local_device_count() > 1
    with contextlib.suppress(RuntimeError):  # JAX_PLATFORMS may leave no CPU
        if several and jax.default_backend() != "cpu":
            return jax.default_device(jax.local_devices(backend="cpu")[0])
    return contextlib.nullcontext()


def is_first() -> bool:
    """Whether this process writes what there is one of."""
    return jax.process_index() == 0


def everyones(*numbers: float) -> Float[np.ndarray, "p k"]:
    """k numbers of each process, known to all. Waits for all."""
    own = np.array(numbers, np.float32)
    if jax.process_count() == 1:
        return own[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(own))


def on_this_machine() -> int:
    """How many of the processes run on this one's machine. Waits for all."""
    name = zlib.crc32(socket.gethostname().encode()) % 2**24  # as float32 holds it
    return int((everyones(name) == name).sum())


def clock() -> float:
    """Seconds that pass alike for all: process 0's. Waits for all."""
    if jax.process_count() == 1:
        return time.monotonic()
    return float(everyones(time.monotonic() - _BEGAN)[0, 0])


_BEGAN = time.monotonic()


def put(tree: Any, sharding: Any) -> Any:
    """Arrays that all processes know in full, on the devices of a sharding (or of a tree of them).

    Each process copies the parts that its own devices hold.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    if isinstance(sharding, Sharding):
        sharding = jax.tree.map(lambda _: sharding, tree)

    def one(leaf, sharding):
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(one, tree, sharding)


def own_rows(tree: Any) -> Any:
    """NumPy [m, ...] of arrays [n, ...] that are split by row: what this process's devices hold."""

    def one(leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return np.asarray(leaf)
        shards = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
        return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])

    return jax.tree.map(one, tree)


def own_row(tree: Any, i: int) -> Any:
    """NumPy of row i of arrays [n, ...] that are split by row.

    None where another process's devices hold it. Nothing else is copied.
    """

    def one(leaf):
        for shard in leaf.addressable_shards:
            start = shard.index[0].start or 0
            if start <= i < start + shard.data.shape[0]:
                return np.asarray(shard.data[i - start])
        return None

    leaves, structure = jax.tree.flatten(tree)
    found = [one(leaf) for leaf in leaves]
    return None if any(leaf is None for leaf in found) else structure.unflatten(found)


def spread_rows(tree: Any, sharding: Sharding) -> Any:
    """`own_rows` undone: arrays [n, ...] on the devices of a sharding by row."""
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree
    )


def own_slice(n: int) -> slice:
    """Which of n rows are this process's."""
    m = n // jax.process_count()
    return slice(jax.process_index() * m, (jax.process_index() + 1) * m)


def all_rows(tree: Any) -> Any:
    """NumPy [n, ...] of the rows [m, ...] that each process has, of as many each. Waits for all."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def wait(what: str) -> None:
    """Return when all processes have come here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)
