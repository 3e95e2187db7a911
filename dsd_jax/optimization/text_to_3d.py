"""Text to 3D for many seeds: what to do, how the seeds are spread, and one chunk from end to end.

Letters: n seeds in all, c seeds a chunk.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.optimization import checkpoint, loop, memory
from dsd_jax.optimization.conditioning import Text, embed_prompt
from dsd_jax.optimization.presets import Settings, phases
from dsd_jax.optimization.seeds import chunk_seeds
from dsd_jax.optimization.state import State, init_state, make_scene
from dsd_jax.optimization.step import Recipe, Shared, make_refresh, make_step
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.rendering.scene import Scene

CHECKPOINT_SECONDS = 60.0


class Task(NamedTuple):
    """One prompt to be made into objects.

    Attributes:
        method: a value of `distillation.METHODS`.
        text: the embedded prompt.
    """

    prior: Prior
    scene: Scene
    method: Callable
    settings: Settings
    text: Text


class Plan(NamedTuple):
    """How n seeds are spread over time and devices.

    Attributes:
        chunks: seeds that run together; all chunks have one length, see `chunk_seeds`.
        needs: estimated memory.
        devices: how many local devices share a chunk.
        limit: bytes that one device may use.
    """

    chunks: list[list[int]]
    needs: memory.Needs
    devices: int
    limit: int

    @property
    def bytes_needed(self) -> int:
        """Estimated memory of the busiest moment on one device."""
        return self.needs.prior + len(self.chunks[0]) // self.devices * self.needs.per_seed

    def __str__(self) -> str:
        n, c = len({s for chunk in self.chunks for s in chunk}), len(self.chunks[0])
        text = f"{n} seed{'s' * (n > 1)}"
        if len(self.chunks) > 1:
            text += f" in {len(self.chunks)} chunks of {c}"
        if self.devices > 1:
            text += f" over {self.devices} devices"
        return f"{text}; memory: {self.needs}, in all {memory.gb(self.bytes_needed)}"

    @property
    def warning(self) -> str | None:
        """What to say where even one seed is estimated not to fit, else None."""
        if self.bytes_needed <= self.limit or len(self.chunks[0]) > self.devices:
            return None
        return _too_much(self.needs, f"the device has {memory.gb(self.limit)}")


def make_task(prior: Prior, prompt: str, method: Callable, settings: Settings) -> Task:
    """Everything that all seeds of a prompt share; the prior without its text encoder."""
    text = embed_prompt(prior, prompt, settings)
    params = {name: tree for name, tree in prior.params.items() if name != "text_encoder"}
    prior = dataclasses.replace(prior, params=params)
    return Task(prior, make_scene(settings), method, settings, text)


def make_plan(task: Task, seeds: list[int], max_memory_gb: float = 0.0) -> Plan:
    """Split seeds into chunks that fit.

    Args:
        max_memory_gb: what one device may use, the prior included; 0 asks the device.

    Raises:
        ValueError: one seed does not fit into `max_memory_gb`, or that is no size.
    """
    needs, devices = memory.needs(task.prior, task.scene, task.settings), jax.local_device_count()
    if not 0 <= max_memory_gb < math.inf:
        raise ValueError(f"--max-memory-gb must be a number from 0 on, not {max_memory_gb}")
    limit = int(max_memory_gb * 1e9) if max_memory_gb else needs.prior + memory.bytes_available()
    fit = (limit - needs.prior) // needs.per_seed
    if fit < 1 and max_memory_gb:
        raise ValueError(_too_much(needs, f"--max-memory-gb is {max_memory_gb:g}"))
    chunks = chunk_seeds(seeds, devices * max(1, fit))
    return Plan(chunks, needs, loop.seed_mesh(len(chunks[0])).size, limit)


def _too_much(needs: memory.Needs, have: str) -> str:
    """One line for a user whose device is too small for one seed."""
    return (
        f"one seed needs about {memory.gb(needs.prior + needs.per_seed)} of memory ({needs}), "
        f"but {have}; make --resolution, --samples or --views smaller, or take a smaller prior"
    )


def make_blocks(task: Task, mesh) -> list[tuple[int, loop.Block]]:
    """The phases of a run for `loop.run`: (end step, compiled block)."""
    prior = dataclasses.replace(task.prior, params=None)
    every = task.settings.occupancy_every

    def block(settings):
        recipe = Recipe(task.scene, prior, task.method, settings)
        return loop.make_block(make_step(recipe), make_refresh(recipe), every, mesh)

    return [(end, block(settings)) for end, settings in phases(task.settings)]


def initial_states(task: Task, chunk: list[int]) -> State:
    """The states [c, ...] of a chunk before the first step."""

    def init(seed):
        return init_state(seed, task.prior.latent_shape, task.scene, task.settings)

    return jax.jit(jax.vmap(init))(jnp.asarray(chunk, jnp.uint32))


def optimise_chunk(
    task: Task,
    chunk: list[int],
    blocks: list[tuple[int, loop.Block]],
    mesh,
    folder: Path,
    on_block: Callable[[loop.Progress], None],
    should_stop: Callable[[], bool] = lambda: False,
    on_phase: Callable[[], None] = lambda: None,
    resume: bool = False,
) -> State:
    """Optimise one chunk; checkpoints go to `folder`. Returns its states [c, ...].

    The callbacks are those of `loop.run`.

    Raises:
        ValueError: the checkpoint to resume from does not fit.
    """
    states = checkpoint.load(folder, chunk, jax.eval_shape(lambda: initial_states(task, chunk))) \
        if resume else None  # fmt: skip
    if states is None:
        states = initial_states(task, chunk)
    states, shared = loop.place(mesh, states, Shared(task.prior.params, task.text))
    saved_at = time.monotonic()

    def watch(progress: loop.Progress) -> None:
        nonlocal saved_at
        on_block(progress)
        if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            checkpoint.save(folder, chunk, progress.states)
            saved_at = time.monotonic()

    states = loop.run(blocks, states, shared, watch, should_stop, on_phase)
    checkpoint.save(folder, chunk, states)
    return states


def steps_done(states: State) -> int:
    """Steps that the stacked states have behind them."""
    return int(np.asarray(states.step)[0])
