"""One run from its checked command to its last file, whatever it is that the prior is told.

job = make_job(args, seeds, task, {"prompt": "a house"})
plan = begin(job)                       # None where the run is complete
code = run(job, plan, began) if plan else code_of(job)
"""

import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from dsd_jax.cli import complete, lock, run_args, validate
from dsd_jax.cli.live_viewer import show_growing
from dsd_jax.cli.logs import open_logs
from dsd_jax.cli.program import FAILED, INTERRUPTED, refuse
from dsd_jax.cli.reporter import Reporter
from dsd_jax.cli.run_args import RunArgs
from dsd_jax.engine import hosts, results
from dsd_jax.engine.checkpoint import Saved
from dsd_jax.engine.generate import CompiledPhases, Saving, Watch, load_states, optimise
from dsd_jax.engine.loop import Progress, interruptible
from dsd_jax.engine.lost import LOST
from dsd_jax.engine.objects import Objects
from dsd_jax.engine.plan import Plan, make_plan
from dsd_jax.engine.precompile import compiling_ahead
from dsd_jax.engine.task import Task
from dsd_jax.export.manifest import drop_manifest
from dsd_jax.files import sweep, write_json
from dsd_jax.priors import choose_precision

_NOT_ALL = "stopped: not all results are written; the same command writes them"


class Job(NamedTuple):
    """A checked command.

    Attributes:
        folder: of the run.
        config: all that the objects depend on; config.json.
        saved: the seeds that have a checkpoint.
    """

    args: RunArgs
    seeds: list[int]
    task: Task
    folder: Path
    config: dict[str, Any]
    saved: dict[int, Saved]


def make_job(
    args: RunArgs, seeds: list[int], task: Task, told: dict[str, Any],
    given: dict[str, Any] | None = None,
) -> Job:  # fmt: skip
    """The job of checked arguments; writes nothing.

    Args:
        told: what the prior is told, as config.json names it: {"prompt": "a house"}.
        given: flags of the program's own files, for the command that the gallery shows; they are
            noted in config.json, but make no other run.

    Raises:
        ValueError: `args.out` is the folder of another run, another process is at work in the
            folder, or a checkpoint cannot be read.
    """
    precision = choose_precision(args.precision)
    about = results.config_of(task.recipe, seeds, args.prior, precision)
    config = {**told, **about, "preset": args.preset}
    config |= {"pose": args.pose} if args.pose else {}
    folder = validate.folder_of(args.out, task.told, config)
    config |= results.given_of(args.prior, given)
    lock.refuse_held(folder)
    saved = load_states(task, checkpoints(folder), seeds) if args.resume else {}
    return Job(args, seeds, task, folder, config, saved)


def begin(job: Job) -> Plan | None:
    """The job's plan, its folder made; None, with a line that says so, where it is complete.

    Raises ValueError, with one line for the user, where it does not fit or no folder can be made.
    """
    if job.args.resume and complete.is_complete(job.folder, job.seeds, job.args.mesh):
        shutil.rmtree(checkpoints(job.folder), ignore_errors=True)
        print(f"{job.folder} is complete: nothing to resume (--no-resume makes it anew)")
        return None
    if job.args.resume and not job.saved and (job.folder / "metrics.json").exists():
        print(f"{job.folder} is not complete: what is missing or damaged is made again")
    plan = make_plan(job.task, job.seeds, run_args.devices(job.args), job.saved)
    validate.make_folder(job.folder)
    return plan


def main(argv: Sequence[str], prepare: Callable[[Sequence[str]], Job]) -> int:
    """Prepare a job, run it; returns the exit code."""
    began = time.monotonic()
    try:
        run_args.start_if_asked(argv)
        job = prepare(argv)
        plan = begin(job)
    except (ValueError, OSError) as error:
        return refuse(error)
    return run(job, plan, began) if plan else code_of(job)


def code_of(job: Job) -> int:
    """The exit code of a job that is complete."""
    return LOST if complete.lost_seeds(job.folder) else 0


def run(
    job: Job, plan: Plan, began: float, blocks: Callable[[Mesh], CompiledPhases] | None = None
) -> int:
    """Optimise all chunks, then write what they became; returns the exit code.

    It is `LOST` where a seed diverged, or nothing of an object is left; after one line `BAD_INPUT`
    where another process holds the folder, `FAILED` where it cannot be written.

    Args:
        began: `time.monotonic()` when the program started.
        blocks: where several jobs are to share what is compiled.
    """
    try:
        with lock.held(job.folder):
            code = _make_again(job, plan)
            return _run(job, plan, began, blocks) if code is None else code
    except lock.Held as error:
        return refuse(error)
    except OSError as error:
        reason = error.strerror or str(error)
        where = f"{error.filename}: " if error.filename else ""
        mend = "the same command goes on from the last checkpoint that could be written"
        return refuse(OSError(f"{where}{reason}; {mend}"), FAILED)


def _make_again(job: Job, plan: Plan) -> int | None:
    """`run` where the fields are there and whole; else None."""
    if not job.args.resume:
        return None
    try:
        objects = complete.make_again(job.folder, job.config, job.task, plan, job.args.mesh)
    except KeyboardInterrupt:
        print(_NOT_ALL, file=sys.stderr)
        return INTERRUPTED
    return None if objects is None else _ended(job, objects)


def _run(
    job: Job, plan: Plan, began: float, blocks: Callable[[Mesh], CompiledPhases] | None
) -> int:
    """`run` in a folder that is held."""
    loaded = time.monotonic()
    _prepare_folder(job, plan)
    args, recipe, mesh = job.args, job.task.recipe, plan.device_mesh
    reached = {seed: saved.step for seed, saved in job.saved.items()}
    with ExitStack() as stack:
        log = stack.enter_context(open_logs(job.folder, job.config, reached, args.wandb))
        reporter = stack.enter_context(Reporter(job.folder, plan, job.task, log))
        growing = nullcontext(lambda chunk, progress: None)
        if args.viewer:
            growing = show_growing(job.seeds, recipe, args.port, reporter.say)
        show = stack.enter_context(growing)
        reporter.say(f"{job.folder}: {plan}; compiling ...")
        renderers = (
            reporter.renderer,
            results.views_renderer(recipe, mesh),
            results.turntable_renderer(recipe, mesh),
        )
        with interruptible() as stop, compiling_ahead(recipe, renderers, args.mesh) as ahead:

            def on_phase(states) -> None:
                reporter.on_phase(states)
                ahead(states)

            def on_block(chunk: list[int], progress: Progress) -> None:
                reporter.on_block(chunk, progress)
                show(chunk, progress)

            def on_lost(seed: int, why: str) -> None:
                reporter.say(f"seed {seed} {why}; it is left out")

            saving = Saving(checkpoints(job.folder), args.checkpoint_minutes, job.saved)
            watch = Watch(on_phase, on_block, stop, on_lost)
            objects = optimise(job.task, plan, watch, saving, blocks, args.profile or "")
        if objects.interrupted == signal.SIGTERM or not objects.chunks:
            reporter.say("stopped; the same command goes on from here")
            return 128 + objects.interrupted
        if objects.interrupted:
            reporter.say(
                "stopped; writing the results of the steps done (the same command goes on)"
            )
        meshes = args.mesh and not objects.interrupted

        def times() -> dict[str, float]:
            return {"loading": loaded - began, "total": time.monotonic() - began}

        try:
            objects.save(job.folder, meshes=meshes, config=job.config, bar=reporter, times=times)
        except KeyboardInterrupt:
            reporter.say(_NOT_ALL)
            return INTERRUPTED
    return _ended(job, objects)


def _ended(job: Job, objects: Objects) -> int:
    """The exit code where all results are written."""
    hosts.wait("results")
    if hosts.is_first():
        if not objects.interrupted:
            shutil.rmtree(checkpoints(job.folder), ignore_errors=True)
        print(job.folder)
    if objects.interrupted:
        return INTERRUPTED
    return LOST if objects.lost else 0


def checkpoints(folder: Path) -> Path:
    """Folder of a run's checkpoints; it goes when the run is complete."""
    return folder / "checkpoints"


def _prepare_folder(job: Job, plan: Plan) -> None:
    """What is there before the first step."""
    if hosts.is_first():
        sweep(job.folder)
        drop_manifest(job.folder)
        write_json(job.folder / "config.json", job.config)
        if not job.args.resume:
            (job.folder / "metrics.json").unlink(missing_ok=True)
            shutil.rmtree(checkpoints(job.folder), ignore_errors=True)
        if plan.warning:
            print(f"warning: {plan.warning}", file=sys.stderr)
    hosts.wait("folder")
