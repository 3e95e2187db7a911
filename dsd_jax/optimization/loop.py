"""The loop around a step: blocks of steps on the device, callbacks between them.

One compiled program makes a step of all seeds; a block is some steps that the host does not wait
for. The seed axis is split over the mesh axis "seed"; no device ever waits for another. Letters:
n seeds on the first axis.
"""

import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dsd_jax.optimization.seeds import dividing_devices
from dsd_jax.optimization.state import State

Metrics = dict[str, Any]
Step = Callable[[State, Any], tuple[State, Metrics]]
Refresh = Callable[[State], State]
# (states, start, stop, shared), start < stop
Block = Callable[[State, int, int, Any], tuple[State, Metrics]]

BLOCK_SECONDS = 2.0
MAX_BLOCK = 1000


def seed_mesh(n: int, devices=None) -> Mesh:
    """The mesh axis "seed" over as many local devices as divide n seeds evenly."""
    devices = jax.local_devices() if devices is None else devices
    return Mesh(np.array(devices[: dividing_devices(n, len(devices))]), ("seed",))


def place(mesh: Mesh, states: State, shared: Any) -> tuple[State, Any]:
    """n states on the mesh, split by seed, and `shared` (weights, text), whole on each device."""
    return (
        jax.device_put(states, NamedSharding(mesh, P("seed"))),
        jax.device_put(shared, NamedSharding(mesh, P())),
    )


def make_block(step: Step, refresh: Refresh, refresh_every: int, mesh: Mesh) -> Block:
    """A function (states [n, ...], start, stop, shared) -> (states at step `stop`, metrics).

    The states given are donated. Metrics are means over the block's steps, [n] each. How a run is
    cut into blocks does not change its result by a bit.

    The host dispatches step after step without waiting. It is no `lax.fori_loop`: inside a loop
    XLA's CPU compiler runs the backward pass of a convolution six times slower (measured on 0.10.2,
    the VAE encoder), because it brings only those outside of loops into the form it is fast at.

    Args:
        step: one step of one seed, given what all seeds share.
        refresh: housekeeping of one seed (its occupancy grid), run before every
            `refresh_every`-th step.
    """
    seeds, whole = P("seed"), P()
    spread = partial(jax.shard_map, mesh=mesh, out_specs=seeds, check_vma=False)
    step_all = spread(jax.vmap(step, in_axes=(0, None)), in_specs=(seeds, whole))
    step_all = jax.jit(step_all, donate_argnums=0)
    refresh_all = jax.jit(spread(jax.vmap(refresh), in_specs=(seeds,)), donate_argnums=0)
    add = jax.jit(partial(jax.tree.map, jnp.add), donate_argnums=0)

    def block(states: State, start: int, stop: int, shared: Any) -> tuple[State, Metrics]:
        sums = None
        for i in range(start, stop):
            if i % refresh_every == 0:
                states = refresh_all(states)
            states, metrics = step_all(states, shared)
            sums = metrics if sums is None else add(sums, metrics)
        return states, jax.tree.map(lambda m: m / (stop - start), sums)

    return block


class Progress(NamedTuple):
    """What a callback learns after each block."""

    states: State
    done: int
    metrics: dict[str, np.ndarray]
    seconds_per_step: float


def run(
    blocks: list[tuple[int, Block]],
    states: State,
    shared: Any,
    on_block: Callable[[Progress], None],
    should_stop: Callable[[], bool] = lambda: False,
    on_phase: Callable[[], None] = lambda: None,
) -> State:
    """Run the states through phases until the last one's end, or until `should_stop` says so.

    The first block of a phase is one step long, since it compiles; the others take about
    `BLOCK_SECONDS`.

    Args:
        blocks: (end step, block function) of each phase, ends ascending.
        on_phase: called before a phase's first block, which may have to compile.
    """
    done = int(np.asarray(states.step)[0])
    for end, block in blocks:
        length = 1
        if done < end:
            on_phase()
        while done < end and not should_stop():
            length = min(length, end - done)
            began = time.perf_counter()
            states, metrics = jax.block_until_ready(block(states, done, done + length, shared))
            seconds = (time.perf_counter() - began) / length
            done += length
            on_block(Progress(states, done, jax.device_get(metrics), seconds))
            length = _next_length(length, seconds)
    return states


def _next_length(length: int, seconds_per_step: float) -> int:
    """Steps of the next block: about `BLOCK_SECONDS`, growing at most eightfold at a time."""
    wanted = int(BLOCK_SECONDS / max(seconds_per_step, 1e-6))
    return int(np.clip(wanted, 1, min(8 * length, MAX_BLOCK)))


@contextmanager
def interruptible():
    """Turn the first Ctrl-C into a flag: yields a function that says whether it was pressed.

    A second Ctrl-C raises KeyboardInterrupt as usual. Outside the main thread, where Python sets
    no signal handlers, Ctrl-C keeps its usual meaning.
    """
    pressed = False

    def handler(number, frame):
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        previous = signal.signal(signal.SIGINT, handler)
    except ValueError:
        yield lambda: False
        return
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, previous)
