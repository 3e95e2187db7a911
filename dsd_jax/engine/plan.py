"""Text to 3D for many seeds: what to do, how the seeds are spread, and one chunk from end to end.

Letters: n seeds in all, c seeds a chunk.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dsd_jax.distillation.common import Method
from dsd_jax.engine import checkpoint, hosts, loop, memory
from dsd_jax.engine.seeds import chunk_length, chunk_seeds
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.recipe import method_step
from dsd_jax.recipe.presets import Settings, phases, resolved
from dsd_jax.recipe.state import State, init_state, make_scene, without_cache
from dsd_jax.recipe.step import Recipe, Shared, make_cache, make_refresh, make_step
from dsd_jax.recipe.viewpoints import Prompt, embed_prompt
from dsd_jax.rendering.scene import Scene


class Task(NamedTuple):
    """One prompt, or one picture, to be made into objects.

    Attributes:
        method: a value of `distillation.METHODS`.
        text: the embedded prompt, or the picture.
    """

    prior: Prior
    scene: Scene
    method: Method
    settings: Settings
    text: Prompt


class Plan(NamedTuple):
    """How n seeds are spread over time and devices.

    Attributes:
        chunks: seeds that run together; all chunks have one length, see `chunk_seeds`.
        needs: estimated memory.
        mesh: of the devices that share a chunk.
        limit: bytes that one device may use.
    """

    chunks: list[list[int]]
    needs: memory.Needs
    mesh: Mesh
    limit: int

    @property
    def model(self) -> int:
        """How many devices share one copy of the prior's weights."""
        return self.mesh.shape.get("model", 1)

    @property
    def bytes_needed(self) -> int:
        """Estimated memory of the busiest moment on one device."""
        return self.needs.shared // self.model + self.on_each * self.needs.per_seed

    @property
    def on_each(self) -> int:
        """How many seeds of a chunk a device has."""
        return len(self.chunks[0]) // self.mesh.shape["seed"]

    def __str__(self) -> str:
        n, c = len({s for chunk in self.chunks for s in chunk}), len(self.chunks[0])
        text = f"{n} seed{'s' * (n > 1)}"
        if len(self.chunks) > 1:
            text += f" in {len(self.chunks)} chunks of {c}"
        if self.mesh.size > 1:
            text += f" over {self.mesh.size} devices"
        if self.model > 1:
            text += f", the prior split over {self.model}"
        if jax.process_count() > 1:
            text += f" of {jax.process_count()} processes"
        return f"{text}; memory: {self.needs}, in all {memory.gb(self.bytes_needed)}"

    @property
    def warning(self) -> str | None:
        """What to say where even one seed is estimated not to fit, else None."""
        if self.bytes_needed <= self.limit or self.on_each > 1:
            return None
        return _too_much(self.needs, f"the device has {memory.gb(self.limit)}")


def make_task(prior: Prior, prompt: str, method: Method, settings: Settings) -> Task:
    """Everything that all seeds of a prompt share; the prior without its text encoder."""
    settings = resolved(settings, method)
    text = embed_prompt(prior, prompt, settings)
    params = {name: tree for name, tree in prior.params.items() if name != "text_encoder"}
    prior = dataclasses.replace(prior, params=params)
    return Task(prior, make_scene(settings), method, settings, text)


def make_plan(
    task: Task,
    seeds: list[int],
    max_memory_gb: float = 0.0,
    devices: int = 0,
    shard_prior: int = 0,
    saved: Mapping[int, checkpoint.Saved] = MappingProxyType({}),
) -> Plan:
    """Split seeds into chunks that fit.

    Args:
        max_memory_gb: what one device may use, the prior included; 0 asks the device.
        devices: how many of each process; 0 takes all.
        shard_prior: how many devices share one copy of the prior's weights; 0 takes the fewest
            with which one seed fits.
        saved: where seeds have got to. A chunk holds seeds that are equally far; if they ran on as
            many devices, in chunks as long as before.

    Raises:
        ValueError: one seed does not fit into `max_memory_gb`, or that is no size; there are not so
            many devices, or `shard_prior` does not divide them.
    """
    needs = memory.needs(task.prior, task.scene, task.settings, task.method)
    if not 0 <= max_memory_gb < math.inf:
        raise ValueError(f"--max-memory-gb must be a number from 0 on, not {max_memory_gb}")
    there = loop.devices_of_all(devices)
    limit = _limit(task, needs, max_memory_gb)
    model = _model_axis(len(there) // jax.process_count(), shard_prior, needs, limit)
    fit = (limit - needs.shared // model) // needs.per_seed
    if fit < 1 and max_memory_gb:
        raise ValueError(_too_much(needs, f"--max-memory-gb is {max_memory_gb:g}"))
    groups, fit, together = len(there) // model, max(1, fit), jax.process_count() > 1
    c = chunk_length(len(seeds), fit, groups, all_of_them=together)
    for before in saved.values():
        used = loop.seed_mesh(before.length, there, model).size
        every = not together or used == len(there)
        if before.devices == used and every and before.length <= groups * fit:
            c = before.length
    return Plan(_equally_far(seeds, c, saved), needs, loop.seed_mesh(c, there, model), limit)


def _limit(task: Task, needs: memory.Needs, max_memory_gb: float) -> int:
    """Bytes that one device may use; the smallest of all processes'."""
    limit = int(max_memory_gb * 1e9)
    if not limit:
        leaves = [
            leaf for leaf in jax.tree.leaves(task.prior.params) if isinstance(leaf, jax.Array)
        ]
        there = jax.local_devices()[0]
        on_host = any(leaf.devices() != {there} for leaf in leaves)
        limit = memory.bytes_available() + (0 if on_host else needs.prior)
    if jax.process_count() > 1:
        limit = int(hosts.everyones(limit / 1e6).min() * 1e6)
    return limit


def _model_axis(devices: int, shard_prior: int, needs: memory.Needs, limit: int) -> int:
    """Over how many of a process's devices the prior is split."""
    able = [k for k in range(1, devices + 1) if devices % k == 0]
    if shard_prior:
        if shard_prior not in able:
            raise ValueError(
                f"--shard-prior {shard_prior} does not divide the devices, of which there "
                f"{'is' if devices == 1 else 'are'} {devices}"
            )
        return shard_prior
    return next((k for k in able if needs.shared // k + needs.per_seed <= limit), 1)


def _equally_far(seeds: list[int], c: int, saved: Mapping[int, checkpoint.Saved]):
    """Chunks of c seeds each, those furthest first."""
    steps = {seed: saved[seed].step if seed in saved else 0 for seed in seeds}
    groups = [[s for s in seeds if steps[s] == step] for step in sorted({*steps.values()})[::-1]]
    return [chunk for group in groups for chunk in chunk_seeds(group, c)]


def _too_much(needs: memory.Needs, have: str) -> str:
    """One line for a user whose device is too small for one seed."""
    return (
        f"one seed needs about {memory.gb(needs.shared + needs.per_seed)} of memory ({needs}), "
        f"but {have}; make --resolution, --samples or --views smaller, or take a smaller prior"
    )


def make_blocks(task: Task, mesh, text_each: bool = False) -> list[tuple[int, loop.Block]]:
    """The phases of a run for `loop.run`: (end step, compiled block).

    With `text_each` the leaves of `Shared.text` have a row for each seed: seeds of several prompts
    run together.
    """
    prior = dataclasses.replace(task.prior, params=None)
    every = task.settings.occupancy_every
    axes = Shared(None, cast(Any, 0)) if text_each else None

    def block(settings):
        recipe = Recipe(task.scene, prior, task.method, settings)
        step, refresh, fill = make_step(recipe), make_refresh(recipe), make_cache(recipe)
        return loop.make_block(step, refresh, every, mesh, fill, axes)

    return [(end, block(settings)) for end, settings in phases(task.settings)]


def initial_states(task: Task, chunk: list[int]) -> State:
    """The states [c, ...] of a chunk before the first step."""
    method = method_step.initial(task)

    def init(seed):
        return init_state(seed, task.prior.latent_shape, task.scene, task.settings, method)

    return jax.jit(jax.vmap(init))(jnp.asarray(chunk, jnp.uint32))


def load_states(task: Task, folder: Path, seeds: list[int]) -> dict[int, checkpoint.Saved]:
    """Those of the seeds that have a checkpoint in the folder. Raises as `checkpoint.load`."""
    like = jax.eval_shape(lambda: initial_states(task, [0]))
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), like)
    return {k: v for k, v in checkpoint.load(folder, like).items() if k in seeds}


def optimise_chunk(
    task: Task,
    chunk: list[int],
    blocks: list[tuple[int, loop.Block]],
    mesh: Mesh,
    folder: Path,
    on_block: Callable[[loop.Progress], None],
    should_stop: Callable[[], int] = lambda: 0,
    on_phase: Callable[[State], None] = lambda states: None,
    saved: Mapping[int, checkpoint.Saved] = MappingProxyType({}),
    checkpoint_minutes: float = 5.0,
    profile: str | Path = "",
) -> State:
    """Optimise one chunk; checkpoints go to `folder`. Returns its states [c, ...].

    The callbacks and `profile` are those of `loop.run`.

    Args:
        saved: where seeds have got to; all of a chunk equally far.
        checkpoint_minutes: how often states are written, beside those at the end; 0 after every
            block.
    """
    if chunk[0] in saved:
        states = jax.tree.map(lambda *rows: np.stack(rows), *(saved[seed].state for seed in chunk))
    else:
        states = initial_states(task, chunk)
    states, shared = loop.place(mesh, states, Shared(task.prior.params, task.text))
    saved_at, metrics = hosts.clock(), {}
    with checkpoint.writer(folder, chunk, mesh.size) as save:

        def watch(progress: loop.Progress) -> None:
            nonlocal saved_at, metrics
            on_block(progress)
            metrics = progress.metrics
            if hosts.clock() - saved_at >= 60 * checkpoint_minutes:
                save(progress.states, metrics)
                saved_at = hosts.clock()

        states = loop.run(blocks, states, shared, watch, should_stop, on_phase, profile)
        states = without_cache(states)
        if metrics:
            save(states, metrics)
    return states


def steps_done(states: State) -> int:
    """Steps that the stacked states have behind them."""
    return int(np.asarray(states.step)[0])
