"""The loop around a step: blocks of steps on the devices, callbacks between them.

One program makes a step of all seeds; a block is some steps that the host does not wait for. The
seed axis is split over the mesh axis "seed", along which no device waits for another. The prior's
weights are whole on each device, or split over a second axis "model", along which XLA divides the
work on one seed. Letters: n seeds on the first axis.
"""

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dsd_jax.engine import host_memory, hosts
from dsd_jax.engine.programs import Program
from dsd_jax.engine.turns import beside_a_run, undisturbed
from dsd_jax.recipe.state import State

Metrics = dict[str, Any]
Step = Callable[[State, Any], tuple[State, Metrics]]
Refresh = Callable[[State], State]
Fill = Callable[[State, Any], State]

BLOCK_SECONDS = 2.0
MAX_BLOCK = 1000
PROFILED_STEPS = 5


class Rounds(NamedTuple):
    """A phase whose steps come in rounds.

    Attributes:
        begin: what follows `prepare` in the first round, of one seed.
        prepare: what begins a round of one seed, given what all share and whether it is the first.
        prepare_every, begins: steps of a round; step at which the first one begins.
    """

    begin: Any
    prepare: Any
    prepare_every: int
    begins: int


class Block(NamedTuple):
    """Compiled programs for n seeds, which make some steps of all of them; see `make_block`."""

    step: Any
    refresh: Any
    refresh_every: int
    fill: Any
    add: Any
    begin: Any = None
    prepare: Any = None
    prepare_every: int = 1
    begins: int = 0

    def __call__(self, states: State, start: int, stop: int, shared: Any) -> tuple[State, Metrics]:
        """The states at step `stop` > `start`, and the means of the metrics, [n] each, over them.

        The states given are donated.
        """
        sums = None
        if self.fill and states.ode is None:
            states = self.fill(states, shared)
        for i in range(start, stop):
            if self.prepare and (i - self.begins) % self.prepare_every == 0:
                states = self.prepare(states, shared)
            if self.begin and i == self.begins:
                states = self.begin(states)
            if i % self.refresh_every == 0:
                states = self.refresh(states)
            states, metrics = self.step(states, shared)
            sums = metrics if sums is None else self.add(sums, metrics)
        return states, jax.tree.map(lambda m: m / (stop - start), sums)

    def compile(self, states: State, shared: Any, meanwhile: Callable[[], None]) -> None:
        """Load, or compile at the same time, what a call compiles one after another.

        `meanwhile` is called when it is XLA's turn: what other threads do then holds nobody up.
        """
        pending, last, shapes = [], [], states
        if self.fill and states.ode is None:
            shapes = self.fill.ready(pending, states, shared)
        self.refresh.ready(pending, shapes)
        if self.prepare:
            self.begin.ready(pending, shapes)
        with ThreadPoolExecutor() as pool:
            others = [pool.submit(one) for one in pending]
            for one in filter(None, (self.step, self.prepare)):  # each takes a gigabyte
                one.ready(last, shapes, shared)
            meanwhile()
            for one in last:
                one()
            for other in others:
                other.result()


def make_block(
    step: Step,
    refresh: Refresh,
    refresh_every: int,
    mesh: Mesh,
    fill: Fill | None = None,
    shared_axes: Any = None,
    rounds: Rounds | None = None,
) -> Block:
    """Programs for the seeds on a mesh. How a run is cut into calls does not change it by a bit.

    The host dispatches step after step without waiting. It is no `lax.fori_loop`: inside a loop
    XLA's CPU compiler runs the backward pass of a convolution six times slower (measured on 0.10.2,
    the VAE encoder), because it brings only those outside of loops into the form it is fast at.

    Args:
        step: one step of one seed, given what all seeds share.
        refresh: of one seed's occupancy grid, before every `refresh_every`-th step.
        fill: gives the state of one seed the kept ODE that its steps use, where it has none yet.
        rounds: what is done before the first step of each round, where the phase has any.
        shared_axes: which parts of `shared` have a row for each seed, as `jax.vmap` takes it.
    """
    seeds = P("seed")
    whole = jax.tree.map(lambda axis: P() if axis is None else seeds, shared_axes, is_leaf=_is_none)
    spread = partial(
        jax.shard_map, mesh=mesh, out_specs=seeds, axis_names={"seed"}, check_vma=False
    )
    by_seed = NamedSharding(mesh, seeds)

    def alone(one):
        return program(one, jax.vmap(one), (seeds,))

    def given_shared(one):
        return program(one, jax.vmap(one, (0, shared_axes)), (seeds, whole))

    def prepared(one, begins):
        def each(states, shared):  # all seeds are at one step, so only one branch is run
            told = partial(one, first=states.step[0] == begins)
            return jax.vmap(told, (0, shared_axes))(states, shared)

        return program((one, begins), each, (seeds, whole))

    def program(one, each, specs) -> Program:
        about = (one, str(shared_axes), str(mesh))
        function = spread(each, in_specs=specs)
        return Program(function, *about, donate_argnums=0, out_shardings=by_seed)

    if rounds:
        prepare = prepared(rounds.prepare, rounds.begins)
        rounds = rounds._replace(begin=alone(rounds.begin), prepare=prepare)
    return Block(
        step=given_shared(step),
        refresh=alone(refresh),
        refresh_every=refresh_every,
        fill=given_shared(fill) if fill else None,
        add=jax.jit(partial(jax.tree.map, jnp.add), donate_argnums=0, out_shardings=by_seed),
        **(rounds._asdict() if rounds else {}),
    )


def _is_none(x) -> bool:
    return x is None


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
    should_stop: Callable[[], int] = lambda: 0,
    on_phase: Callable[[State], None] = lambda states: None,
    profile: str | Path = "",
) -> State:
    """Run the states through phases until the last one's end, or until `should_stop` says so.

    The first block of a phase is one step long, since it compiles; so is the last, for what is kept
    of its metrics is to depend on no clock; the others take about `BLOCK_SECONDS`. The host waits
    at the end of a block only. While a phase goes on, the next one's programs are compiled.

    Args:
        blocks: (end step, block) of each phase, ends ascending.
        on_phase: called with the states while a phase's programs are compiled.
        profile: folder for JAX's trace of a few steps, those after the first block.
    """
    done = int(hosts.own_rows(states.step)[0])
    ahead = _Ahead()
    for index, (end, block) in enumerate(blocks):
        length, compiled = 1, False
        if done < end and not should_stop():
            meanwhile = partial(on_phase, states)
            meanwhile() if ahead.is_done() else block.compile(states, shared, meanwhile)
        while done < end and not should_stop():
            length = min(length, max(end - 1 - done, 1))
            trace = nullcontext()
            if profile and compiled:
                length, trace = min(length, PROFILED_STEPS), _trace(profile)
                profile = ""
            began = time.perf_counter()
            with trace, nullcontext() if compiled else undisturbed():
                states, metrics = jax.block_until_ready(block(states, done, done + length, shared))
            seconds = (time.perf_counter() - began) / length
            seconds = float(hosts.everyones(seconds)[0, 0])
            if not compiled and index + 1 < len(blocks):
                ahead = _Ahead(blocks[index + 1][1], states, shared)
            if not compiled:
                host_memory.give_back()
            done, compiled = done + length, True
            metrics = hosts.all_rows(hosts.own_rows(metrics))
            on_block(Progress(states, done, metrics, seconds))
            length = _next_length(length, seconds)
    return states


class _Ahead:
    """The programs of a block, compiled on another thread; several processes do not."""

    def __init__(self, block: Block | None = None, states: Any = None, shared: Any = None):
        self._right = False
        self._thread = None
        if block is None or jax.process_count() > 1:
            return
        shapes = jax.tree.map(shape_of, states)
        self._thread = threading.Thread(target=self._compile, args=(block, shapes, shared))
        self._thread.start()

    def _compile(self, block: Block, shapes: Any, shared: Any) -> None:
        with beside_a_run(), suppress(Exception):
            block.compile(shapes, shared, lambda: None)
            self._right = True

    def is_done(self) -> bool:
        """Waits for it; False where there was nothing, or it failed: who compiles then is told."""
        if self._thread is not None:
            self._thread.join()
        return self._right


def shape_of(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    """What a program is compiled for in place of an array."""
    kind = {"sharding": leaf.sharding, "weak_type": leaf.weak_type}
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, **kind)


def _trace(folder: str | Path):
    """JAX's profiler: a trace for TensorBoard or xprof, and one for ui.perfetto.dev."""
    return jax.profiler.trace(str(folder), create_perfetto_trace=True)


def _next_length(length: int, seconds_per_step: float) -> int:
    """Steps of the next block: about `BLOCK_SECONDS`, growing at most eightfold at a time."""
    wanted = int(BLOCK_SECONDS / max(seconds_per_step, 1e-6))
    return int(np.clip(wanted, 1, min(8 * length, MAX_BLOCK)))


@contextmanager
def interruptible():
    """Turn Ctrl-C and SIGTERM into a flag: yields a function that says which came, or 0.

    All processes get the same answer, and wait for it together. A second Ctrl-C raises
    KeyboardInterrupt as usual. Outside the main thread, where Python sets no signal handlers, both
    keep their usual meaning.
    """
    pressed = 0

    def handler(number, frame):
        nonlocal pressed
        pressed = max(pressed, number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def which() -> int:
        return int(hosts.everyones(pressed).max())

    if threading.current_thread() is not threading.main_thread():
        yield which
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, handler) for number in numbers]
    try:
        yield which
    finally:
        for number, before in zip(numbers, previous, strict=True):
            signal.signal(number, before)
