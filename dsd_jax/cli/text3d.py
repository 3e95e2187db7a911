"""Text to 3D: several seeds of one prompt, each a different object, all optimised together.

    python experiments/text3d.py --prompt "a house" --seeds 0:4
    python experiments/text3d.py --prompts experiments/prompts/study.txt --seeds 0:4
    python experiments/text3d.py --prompt "a red chair" --retexture chair.glb

Writes runs/<prompt>-<hash>/: index.html (a gallery), seeds.png, metrics.json, config.json, logs
and for each seed seed_0000/ with turntable.mp4, views/, mesh.glb and the field. The same command
again, whatever ended it, goes on from the last checkpoint. With --prompts every prompt is a run of
its own, the step compiled once; runs/overview.html shows all. The exit code is 1 if one failed, 3
if a seed diverged or nothing of an object is left.

The first command takes 6 to 8 minutes on 2 CPU cores, compiling included; expect the judge to
accept 3 or 4 of 4 houses.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import tyro

from dsd_jax.cli import run_args, validate
from dsd_jax.cli.job import Job, begin, code_of, make_job, run
from dsd_jax.cli.program import refuse
from dsd_jax.cli.prompts import read
from dsd_jax.cli.queue import run_all
from dsd_jax.cli.run_args import RunArgs
from dsd_jax.data import given_mesh
from dsd_jax.engine.plan import make_plan
from dsd_jax.engine.task import Task, make_task, warnings_of
from dsd_jax.recipe.recipe import Recipe


@dataclass(frozen=True)
class Args:
    """Optimise one 3D object per seed, all of whose views show what the prompt says."""

    prompt: str = ""
    """What to make, for instance "a house"."""
    prompts: tuple[str, ...] = ()
    """Instead, several: .txt files with one a line (what follows a # is a comment), or prompts."""
    retexture: Path | None = None
    """A mesh (GLB, OBJ, PLY, STL) whose shape is kept: each seed gives it other colours."""
    up: Literal["auto", "y", "z"] = "auto"
    """Which axis of that file is up; auto is z of an STL, else y."""
    turn_deg: float = 0.0
    """Turn that mesh about the upright axis so that its front faces +z (counter-clockwise, seen
    from above)."""
    run: tyro.conf.OmitArgPrefixes[RunArgs] = field(default_factory=RunArgs)


def main(argv: Sequence[str]) -> int:
    """Parse, check, run; returns the exit code."""
    began = time.monotonic()
    try:
        run_args.start_if_asked(argv)
        args, recipe = parse(argv)
        if args.prompts:
            jobs, task = prepare_all(args, recipe)
        else:
            job = prepare(args, recipe)
            plan = begin(job)
    except (ValueError, OSError) as error:
        return refuse(error)
    if args.prompts:
        return run_all(args.run.out, jobs, task, began)
    return run(job, plan, began) if plan else code_of(job)


def parse(argv: Sequence[str]) -> tuple[Args, Recipe]:
    """The command line over the defaults of its preset."""
    own, recipe = run_args.defaults(argv)
    return run_args.parse(Args, argv, __doc__ or "", Args(run=own), recipe)


def prepare(args: Args, recipe: Recipe) -> Job:
    """The job of one prompt, all that can be wrong checked; writes nothing.

    Raises ValueError or FileNotFoundError with one line for the user.
    """
    validate.prompt(args.prompt)
    seeds, (task,) = _tasks(args, recipe, [args.prompt])
    return _job(args, seeds, task)


def prepare_all(args: Args, recipe: Recipe) -> tuple[dict[str, Callable[[], Job]], Task]:
    """What makes the job of each prompt, and the task of one of them. Raises as `prepare`."""
    if args.prompt:
        raise ValueError("--prompt and --prompts exclude each other; give one of them")
    prompts = read(args.prompts)
    seeds, tasks = _tasks(args, recipe, prompts)
    return {task.told: partial(_job, args, seeds, task) for task in tasks}, tasks[0]


def _tasks(args: Args, recipe: Recipe, prompts: list[str]) -> tuple[list[int], list[Task]]:
    """The seeds, and each prompt's task: the prior is loaded once, and the prompts embedded."""
    seeds, shape = run_args.check_args(args.run), None
    if args.retexture is None:
        if args.up != "auto" or args.turn_deg != 0:
            raise ValueError("--up and --turn-deg need --retexture: they say how its mesh stands")
    else:
        validate.local_files("retexture", args.retexture)
        shape = given_mesh.read_shape(args.retexture, up=args.up, turn_deg=args.turn_deg)
        run_args.warn([f"{args.retexture}: {doubt}" for doubt in shape.doubts])
    prior = run_args.load(args.run)
    known = warnings_of(prior, prompts, [recipe])
    run_args.warn([*known, *validate.device_warnings()])
    first = make_task(prior, prompts[0], recipe, shape, only_shapes=True)
    make_plan(first, seeds, run_args.devices(args.run))  # what does not fit is said once, and first
    return seeds, [make_task(prior, prompt, recipe, shape) for prompt in prompts]


def _job(args: Args, seeds: list[int], task: Task) -> Job:
    """The job of a prompt, see `make_job`."""
    if task.shape is None or args.retexture is None:
        return make_job(args.run, seeds, task, {"prompt": task.told})
    told = {"prompt": task.told, "mesh": args.retexture.name, "shape": task.shape.fingerprint}
    given = {"retexture": args.retexture.absolute(), "up": args.up, "turn_deg": args.turn_deg}
    return make_job(args.run, seeds, task, told, given)
