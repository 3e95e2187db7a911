"""One run from its checked command to its last file, whatever it is that the prior is told.

    job = make_job(args, seeds, "a house", task, {"prompt": "a house"}, score)
    plan = begin(job)                       # None where the run is complete
    code = run(job, plan, began) if plan else 0

Letters: n seeds, h w pixels.
"""

import dataclasses
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import UInt8

import dsd_jax
from dsd_jax.cli import validate
from dsd_jax.cli.live_viewer import Show, show_growing
from dsd_jax.cli.logs import open_logs
from dsd_jax.cli.reporter import SHEET, Reporter, seeds_sheet
from dsd_jax.cli.run_args import RunArgs, device
from dsd_jax.engine import hosts, results
from dsd_jax.engine.checkpoint import Saved
from dsd_jax.engine.loop import Block, Progress, interruptible
from dsd_jax.engine.plan import (
    Plan,
    Task,
    load_states,
    make_blocks,
    make_plan,
    optimise_chunk,
    steps_done,
)
from dsd_jax.engine.precompile import compiling_ahead
from dsd_jax.engine.results import Scores, planned_memory_gb, summary
from dsd_jax.engine.seeds import unpadded
from dsd_jax.export.gallery import write_gallery
from dsd_jax.export.mesh import exporting
from dsd_jax.export.pictures import save_png
from dsd_jax.files import write_json
from dsd_jax.priors import choose_precision
from dsd_jax.recipe.state import State

BAD_INPUT, INTERRUPTED = 2, 130


class Job(NamedTuple):
    """A checked command.

    Attributes:
        title: what is made, in a few words; the folder is named by it.
        folder: of the run.
        config: all that the objects depend on; config.json.
        saved: the seeds that have a checkpoint.
        score: (seeds, their views) -> what metrics.json says of them.
        beside: a picture shown on contact sheets to the left of the seeds.
    """

    args: RunArgs
    seeds: list[int]
    title: str
    task: Task
    folder: Path
    config: dict[str, Any]
    saved: dict[int, Saved]
    score: Callable[[list[int], UInt8[np.ndarray, "n 8 h w 3"]], Scores]
    beside: UInt8[np.ndarray, "h w 3"] | None = None


def make_job(
    args: RunArgs,
    seeds: list[int],
    title: str,
    task: Task,
    condition: dict[str, Any],
    score: Callable[[list[int], UInt8[np.ndarray, "n 8 h w 3"]], Scores],
    beside: UInt8[np.ndarray, "h w 3"] | None = None,
) -> Job:
    """The job of checked arguments; writes nothing.

    Args:
        condition: what the prior is told, as config.json names it: {"prompt": "a house"}.

    Raises:
        ValueError: `args.out` is the folder of another run, or a checkpoint cannot be read.
    """
    config = {
        **condition,
        "seeds": seeds,
        "method": args.method,
        "prior": args.prior,
        "preset": args.preset,
        "precision": choose_precision(args.precision),
        "settings": dataclasses.asdict(args.settings),
        "version": dsd_jax.__version__,
    }
    folder = validate.folder_of(args.out, title, config)
    saved = load_states(task, checkpoints(folder), seeds) if args.resume else {}
    return Job(args, seeds, title, task, folder, config, saved, score, beside)


def begin(job: Job) -> Plan | None:
    """The job's plan, its folder made; None, with a line that says so, where it is complete.

    Raises ValueError, with one line for the user, where it does not fit or no folder can be made.
    """
    args = job.args
    if args.resume and validate.is_complete(job.folder):
        shutil.rmtree(checkpoints(job.folder), ignore_errors=True)
        print(f"{job.folder} is complete: nothing to resume (--no-resume makes it anew)")
        return None
    plan = make_plan(job.task, job.seeds, *device(args), job.saved)
    validate.make_folder(job.folder)
    return plan


def refuse(error: Exception) -> int:
    """Say in one line what is wrong with the input; returns the exit code."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return BAD_INPUT


# mesh -> the phases of a run, see `make_blocks`
Blocks = Callable[[Mesh], list[tuple[int, Block]]]


def run(job: Job, plan: Plan, began: float, blocks: Blocks | None = None) -> int:
    """Optimise all chunks, then write what they became; returns the exit code.

    Args:
        began: `time.monotonic()` when the program started.
        blocks: where several jobs are to share what is compiled.
    """
    loaded = time.monotonic()
    if hosts.is_first():
        write_json(job.folder / "config.json", job.config)
        if not job.args.resume:
            (job.folder / "metrics.json").unlink(missing_ok=True)
            shutil.rmtree(checkpoints(job.folder), ignore_errors=True)
        if plan.warning:
            print(f"warning: {plan.warning}", file=sys.stderr)
    hosts.wait("folder")
    args, scene, settings = job.args, job.task.scene, job.args.settings
    reached = {seed: saved.step for seed, saved in job.saved.items()}
    with ExitStack() as stack:
        log = stack.enter_context(open_logs(job.folder, job.config, reached, args.wandb))
        reporter = stack.enter_context(
            Reporter(job.folder, plan.chunks, scene, settings, plan.mesh, log, job.beside)
        )
        show = None
        if args.viewer:
            growing = show_growing(job.seeds, scene, settings, args.port, reporter.say)
            show = stack.enter_context(growing)
        reporter.say(f"{job.folder}: {plan}; compiling ...")
        reporter.latest.update({seed: saved.metrics for seed, saved in job.saved.items()})
        with interruptible() as stop:
            made = (blocks or partial(make_blocks, job.task))(plan.mesh)
            cameraworks = reporter.camerawork, *results.cameraworks(scene, settings, plan.mesh)
            with compiling_ahead(scene, settings, cameraworks, args.mesh) as ahead:
                chunks = optimise(job, plan, made, reporter, ahead, stop, show)
            stopped = stop()
        optimised = time.monotonic()
        if stopped == signal.SIGTERM or not chunks:
            reporter.say("stopped; the same command goes on from here")
            return 128 + stopped
        if stopped:
            reporter.say(
                "stopped; writing the results of the steps done (the same command goes on)"
            )
        seeds = write_fields(job, chunks)
        wanted = seeds if args.mesh and not stopped and hosts.is_first() else []
        with exporting(job.folder, wanted, results.mesh_cameras(settings)) as finish_meshes:
            views = write_views(job, chunks, plan.mesh, reporter)
            rendered = time.monotonic()
            hosts.wait("views")
            scores = job.score(seeds, views) if hosts.is_first() else None
            reporter.describe("meshes")
            finish_meshes(lambda line: None, reporter.say)
        if scores:
            steps = {seed: steps_done(states) for chunk, states in chunks for seed in chunk}
            metrics = {
                **summary({seed: steps[seed] for seed in seeds}, reporter.latest, scores),
                "iterations_per_second": reporter.steps_per_second,
                "planned_memory_gb": planned_memory_gb(plan),
                "interrupted": bool(stopped),
                "seconds": {
                    "loading": round(loaded - began, 1),
                    "optimising": round(optimised - loaded, 1),
                    "rendering": round(rendered - optimised, 1),
                    "meshes": round(time.monotonic() - rendered, 1),
                    "total": round(time.monotonic() - began, 1),
                },
            }
            write_json(job.folder / "metrics.json", metrics)
            reporter.say(f"gallery: {write_gallery(job.folder)}")
    hosts.wait("results")
    if hosts.is_first():
        if not stopped:
            shutil.rmtree(checkpoints(job.folder), ignore_errors=True)
        print(job.folder)
    return INTERRUPTED if stopped else 0


def checkpoints(folder: Path) -> Path:
    """Folder of a run's checkpoints; it goes when the run is complete."""
    return folder / "checkpoints"


def optimise(
    job: Job,
    plan: Plan,
    blocks: list[tuple[int, Block]],
    reporter: Reporter,
    ahead: Callable[[State], None],
    stop: Callable[[], int],
    show: Show | None = None,
) -> list[tuple[list[int], State]]:
    """The seeds of each chunk that was begun, and those states that this process has.

    `ahead` is given the states while their steps are compiled.
    """
    args, done = job.args, []

    def on_phase(states: State) -> None:
        reporter.describe("compiling ...")
        ahead(states)

    for index, chunk in enumerate(plan.chunks):
        if stop():
            break
        report = reporter.watch(index)

        def on_block(progress: Progress, chunk=chunk, report=report) -> None:
            report(progress)
            if show:
                show(chunk, progress)

        states = optimise_chunk(
            job.task,
            chunk,
            blocks,
            plan.mesh,
            checkpoints(job.folder),
            on_block,
            stop,
            on_phase,
            job.saved,
            args.checkpoint_minutes,
            "" if index or args.profile is None else args.profile,
        )
        done.append((chunk[: unpadded(chunk)], hosts.own_rows(states)))
    return done


def write_fields(job: Job, chunks: list[tuple[list[int], State]]) -> list[int]:
    """The fields of all seeds that were begun, and these seeds. Returns when all are written."""
    for seeds, rows in chunks:
        results.write_fields(job.folder, seeds, rows, job.task.scene, job.args.settings)
    hosts.wait("fields")
    begun = {seed for seeds, _ in chunks for seed in seeds}
    return [seed for seed in job.seeds if seed in begun]


def write_views(
    job: Job, chunks: list[tuple[list[int], State]], mesh: Mesh, reporter: Reporter
) -> UInt8[np.ndarray, "n 8 h w 3"]:
    """Every seed's pictures and the contact sheet; returns the views of all, in their order."""
    scene, settings = job.task.scene, job.args.settings
    on_view = reporter.count("rendering", len(chunks) * results.views_to_write(settings))
    by_seed = NamedSharding(mesh, PartitionSpec("seed"))
    found: dict[int, np.ndarray] = {}
    for seeds, rows in chunks:
        states = hosts.spread_rows(rows, by_seed)
        views = results.write_views(job.folder, seeds, states, scene, settings, mesh, on_view)
        found.update(zip(seeds, views, strict=True))
    seeds = [seed for seed in job.seeds if seed in found]
    views = np.stack([found[seed] for seed in seeds])
    if hosts.is_first():
        save_png(job.folder / SHEET, seeds_sheet(views, seeds, 192, job.beside))
    return views
