"""Seeds into objects: device mesh, placement, compiled step, checkpoints and results on one page.

    objects = generate(prior, "a house", seeds=range(8), recipe=recipes.quick)

Letters: n seeds in all, c seeds a chunk, which run together.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dsd_jax.engine import checkpoint, hosts, loop
from dsd_jax.engine.device_mesh import place
from dsd_jax.engine.lost import Health, say_lost
from dsd_jax.engine.objects import About, Objects
from dsd_jax.engine.plan import Devices, Plan, make_plan
from dsd_jax.engine.progress import Bar
from dsd_jax.engine.seeds import checked_seeds, unpadded
from dsd_jax.engine.task import Task, make_task, precision_of, prior_name, say_warnings
from dsd_jax.fields.given import GivenShape
from dsd_jax.priors import Prior
from dsd_jax.recipe import method_step, presets, refine
from dsd_jax.recipe.input_picture import InputPicture
from dsd_jax.recipe.recipe import Recipe, phases
from dsd_jax.recipe.state import State, init_state, without_ode
from dsd_jax.recipe.step import make_fill, make_refresh, make_step
from dsd_jax.recipe.targets import no_targets
from dsd_jax.recipe.viewpoints import Shared

# The compiled programs of a run's phases: (end step, block) each.
CompiledPhases = list[tuple[int, loop.Block]]


class Watch(NamedTuple):
    """What is called while seeds are optimised.

    Attributes:
        on_phase: with the states while a phase's programs are compiled.
        on_block: with the seeds of a chunk and what became of them, after each block of steps.
        should_stop: says whether to stop early: 0, or the number of the signal.
        on_lost: with a seed that diverged, and what is said of it.
    """

    on_phase: Callable[[State], None] = lambda states: None
    on_block: Callable[[list[int], loop.Progress], None] = lambda chunk, progress: None
    should_stop: Callable[[], int] = lambda: 0
    on_lost: Callable[[int, str], None] = say_lost


class Saving(NamedTuple):
    """Where checkpoints go, and what is there.

    Attributes:
        folder: None writes none.
        minutes: how often states are written, beside those at the end; 0 after every block.
        saved: where seeds have got to.
    """

    folder: Path | None = None
    minutes: float = 5.0
    saved: Mapping[int, checkpoint.Saved] = MappingProxyType({})


def generate(
    prior: Prior,
    told: str | InputPicture,
    seeds: Sequence[int] = range(4),
    recipe: Recipe | None = None,
    *,
    devices: Devices | int = 0,
    on_progress: Callable[[list[int], loop.Progress], None] | None = None,
    checkpoints: str | Path | None = None,
    shape: GivenShape | None = None,
) -> Objects:
    """One object per seed, all of whose views show what the prompt says, or the picture.

    For several prompts see `generate_each`. A bar shows how far it is. Ctrl-C ends it early: the
    objects are then as they are after the steps done, and say so (`interrupted`). A seed whose
    numbers stop being finite is named on stderr and in `lost`; the others do not notice.

    Args:
        prior: of `load_prior`, or your own.
        told: a prompt; or, for a prior that takes a picture, what `read_picture` made of one.
        seeds: the same seed gives the same object, whatever its companions.
        recipe: left out, `quick` on a CPU and `standard` on an accelerator, of a picture as
            `recipes.of_picture` makes them.
        devices: how many to use, or `Devices`; 0 takes all.
        on_progress: called with the seeds of a chunk and a `loop.Progress` after each block of
            steps; the bar is left out then.
        checkpoints: folder for checkpoints; what is there is gone on from.
        shape: of `read_shape`; it is kept, and the seeds differ in their colours.

    Raises:
        ValueError: in one line, before anything is compiled, for what cannot work.
    """
    task = make_task(prior, told, recipe or usual_recipe(prior, told), shape)
    say_warnings(task)
    return run_task(task, seeds, devices, on_progress, checkpoints)


def generate_each(
    prior: Prior,
    prompts: Sequence[str],
    seeds: Sequence[int] = range(4),
    recipe: Recipe | None = None,
    **options: Any,
) -> Iterator[Objects]:
    """`generate` for one prompt after another; what is compiled serves all.

    Raises ValueError as it does, for all prompts before the first is begun.
    """
    tasks = [make_task(prior, prompt, recipe or usual_recipe()) for prompt in prompts]
    for task in tasks:
        say_warnings(task)
    blocks = cache(partial(make_blocks, tasks[0])) if tasks else None
    return (run_task(task, seeds, blocks=blocks, **options) for task in tasks)


def usual_recipe(prior: Any = None, told: str | InputPicture = "") -> Recipe:
    """`quick` on a CPU, `standard` on an accelerator; for a picture, `presets.of_picture`."""
    recipe = presets.quick if jax.default_backend() == "cpu" else presets.standard
    if isinstance(told, str):
        return recipe
    return presets.of_picture(recipe, getattr(prior, "fov_deg", None))


def about(task: Task) -> About:
    """What a task's objects are made by."""
    prior, pictured = task.prior, task.reference is not None
    names = prior_name(prior), precision_of(prior)
    return About(task.recipe, task.told, task.reference, *names, pictured, task.shape)


def run_task(
    task: Task,
    seeds: Sequence[int],
    devices: Devices | int = 0,
    on_progress: Callable[[list[int], loop.Progress], None] | None = None,
    checkpoints: str | Path | None = None,
    blocks: Callable[[Mesh], CompiledPhases] | None = None,
) -> Objects:
    """What `generate` does with a task; `blocks` are compiled programs that several tasks share."""
    seeds = checked_seeds(seeds)
    devices = devices if isinstance(devices, Devices) else Devices(devices)
    folder = None if checkpoints is None else Path(checkpoints)
    saving = Saving(folder, saved=load_states(task, folder, seeds) if folder else {})
    plan = make_plan(task, seeds, devices, saving.saved)
    with (
        Bar(plan, task.recipe, hidden=on_progress is not None) as bar,
        loop.interruptible() as stop,
    ):
        watch = Watch(bar.on_phase, on_progress or bar.on_block, stop)
        return optimise(task, plan, watch, saving, blocks)


def optimise(
    task: Task,
    plan: Plan,
    watch: Watch = Watch(),
    saving: Saving = Saving(),
    blocks: Callable[[Mesh], CompiledPhases] | None = None,
    profile: str | Path = "",
) -> Objects:
    """Optimise the chunks of a plan, one after the other.

    Args:
        blocks: where several tasks are to share what is compiled.
        profile: see `loop.run`; the first chunk is.
    """
    began = time.monotonic()
    made, latest = (blocks or partial(make_blocks, task))(plan.device_mesh), {}
    latest.update({k: dict(one.metrics) for k, one in saving.saved.items() if not one.diverged})
    chunks: list[tuple[list[int], State]] = []
    health = Health(watch.on_lost)
    for index, chunk in enumerate(plan.chunks):
        if watch.should_stop():
            break

        def on_block(progress: loop.Progress, chunk=chunk) -> None:
            health.look(chunk, progress.states, progress.done, progress.metrics["loss"])
            for i, seed in enumerate(chunk[: unpadded(chunk)]):
                if seed in health.lost:
                    continue
                own = {name: float(values[i]) for name, values in progress.metrics.items()}
                latest.setdefault(seed, {}).update(own)
            watch.on_block(chunk, progress)

        states = _optimise_chunk(
            task, chunk, made, plan.device_mesh, watch._replace(on_block=on_block), saving,
            health, "" if index else profile,
        )  # fmt: skip
        chunks.append((chunk[: unpadded(chunk)], hosts.own_rows(states)))
    stopped, seconds = watch.should_stop(), time.monotonic() - began
    return Objects(about(task), plan, chunks, latest, stopped, seconds, health.lost)


def make_blocks(task: Task, device_mesh: Mesh, condition_each: bool = False) -> CompiledPhases:
    """The phases of a run for `loop.run`, not compiled yet.

    With `condition_each` the leaves of what the prior was told have a row for each seed: seeds of
    several prompts or pictures run together.
    """
    every = task.recipe.render.occupancy_every
    axes = Shared(None, *cast(Any, (0, 0, 0, 0))) if condition_each else None

    def block(recipe: Recipe) -> loop.Block:
        step, refresh = make_step(task.prior, recipe), make_refresh(recipe)
        fill = make_fill(task.prior, recipe)
        return loop.make_block(step, refresh, every, device_mesh, fill, axes)

    made = [(end, block(recipe)) for end, recipe in phases(task.recipe)]
    return [*made, *_refining(task, device_mesh, axes)]


def _refining(task: Task, device_mesh: Mesh, axes: Any) -> CompiledPhases:
    """The phase of the refinement, where there is one."""
    prior, recipe = task.prior, task.recipe
    if not recipe.refine.rounds:
        return []
    begin, prepare = refine.make_begin(recipe), refine.make_prepare(prior, recipe)
    rounds = loop.Rounds(begin, prepare, recipe.refine.fit_steps, recipe.steps)
    needed = recipe.refine.noise == "ode"
    block = loop.make_block(
        refine.make_step(recipe), refine.make_refresh(recipe), recipe.refine.refresh_every,
        device_mesh, make_fill(prior, recipe) if needed else None, axes, rounds,
    )  # fmt: skip
    return [(recipe.total_steps, block)]


def initial_states(task: Task, chunk: Sequence[int]) -> State:
    """The states [c, ...] of a chunk before the first step."""
    method = method_step.initial(task.prior, task.recipe)
    targets = no_targets(task.prior, task.recipe, task.shared.pictures)

    def init(seed, shape):
        return init_state(seed, task.prior.latent_shape, task.recipe, method, targets, shape)

    shape = None if task.shape is None else task.shape.distance
    return jax.jit(jax.vmap(init, (0, None)))(jnp.asarray(chunk, jnp.uint32), shape)


def load_states(task: Task, folder: Path, seeds: Sequence[int]) -> dict[int, checkpoint.Saved]:
    """Those of the seeds that have a checkpoint in the folder. Raises as `checkpoint.load`."""
    like = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], initial_states(task, [0])))
    return {k: v for k, v in checkpoint.load(folder, like).items() if k in seeds}


def _optimise_chunk(
    task: Task, chunk: list[int], blocks: CompiledPhases, device_mesh: Mesh, watch, saving: Saving,
    health: Health, profile: str | Path,
) -> State:  # fmt: skip
    """Optimise one chunk; returns its states [c, ...], without the kept ODE.

    It ends early where no seed of it is worth another step.
    """
    known = {seed: saving.saved[seed] for seed in chunk if seed in saving.saved}
    if known:
        states = jax.tree.map(lambda *rows: np.stack(rows), *(known[k].state for k in chunk))
    else:
        states = initial_states(task, chunk)
    states, shared = place(device_mesh, states, task.shared)
    for seed, one in known.items():
        if one.diverged:
            health.note(seed, one.diverged)
    saved_at, metrics = hosts.clock(), checkpoint.metrics_of(chunk, known)
    reached = known[chunk[0]].step if known else 0
    with checkpoint.writer(saving.folder, chunk, device_mesh.size, reached) as save:

        def on_block(progress: loop.Progress) -> None:
            nonlocal saved_at, metrics
            watch.on_block(progress)
            metrics = metrics | progress.metrics | health.metrics(chunk)
            if hosts.clock() - saved_at >= 60 * saving.minutes:
                save(progress.states, metrics)
                saved_at = hosts.clock()

        stop = lambda: watch.should_stop() or int(health.all_lost(chunk))  # noqa: E731
        states = loop.run(blocks, states, shared, on_block, stop, watch.on_phase, profile)
        states = without_ode(states)
        if metrics:
            save(states, metrics)
    return states
