"""Text to 3D: several seeds of one prompt, each a different object, all optimised together.

    python experiments/text3d.py --prompt "a house" --seeds 0:4
    python experiments/text3d.py --prompts experiments/prompts/study.txt --seeds 0:4

Writes to runs/<prompt>-<hash>/: index.html (a gallery), config.json, metrics.json, seeds.png (one
column a seed), log.jsonl, TensorBoard events, and for each seed seed_0000/ with turntable.mp4,
views/az000.png ... az315.png, mesh.glb and the field (field.safetensors, field.json; read by
`dsd_jax.export.scenes.load_scene`). --viewer shows the objects in the browser while they grow.
Every number of the recipe is a flag too: see --help. The same command again, whatever ended it,
goes on from the last checkpoint. With --prompts every prompt is a run of its own, with the weights
loaded and the step compiled once; runs/overview.html shows all. Those that are complete are not
made again; one that fails does not stop the others, and the exit code is 1 then.

The first command takes 6 to 7 minutes on 2 CPU cores, compiling included; expect the judge to
accept 3 of 4 houses.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import tyro

from dsd_jax.cli import run_args, validate
from dsd_jax.cli.job import Job, begin, make_job, refuse, run
from dsd_jax.cli.prompts import read
from dsd_jax.cli.queue import run_all
from dsd_jax.cli.run_args import RunArgs
from dsd_jax.distillation import METHODS
from dsd_jax.engine.plan import Task, make_plan, make_task
from dsd_jax.engine.results import prompt_scores


@dataclass(frozen=True)
class Args:
    """Optimise one 3D object per seed, all of whose views show what the prompt says."""

    prompt: str = ""
    """What to make, for instance "a house"."""
    prompts: tuple[str, ...] = ()
    """Instead, several: .txt files with one a line (what follows a # is a comment), or prompts."""
    run: tyro.conf.OmitArgPrefixes[RunArgs] = field(default_factory=RunArgs)


def main(argv: list[str] | None = None) -> int:
    """Parse, check, run; returns the exit code."""
    began, argv = time.monotonic(), sys.argv[1:] if argv is None else argv
    try:
        run_args.start_if_asked(argv)
        args = parse(argv)
        if args.prompts:
            jobs, task = prepare_all(args)
        else:
            job = prepare(args)
            plan = begin(job)
    except (ValueError, FileNotFoundError) as error:
        return refuse(error)
    if args.prompts:
        return run_all(args.run.out, jobs, task, began)
    return run(job, plan, began) if plan else 0


def parse(argv: list[str]) -> Args:
    """The command line over the defaults of its preset."""
    default = Args(run=run_args.defaults(argv))
    return tyro.cli(Args, args=argv, default=default, description=__doc__)


def prepare(args: Args) -> Job:
    """The job of one prompt, all that can be wrong checked; writes nothing.

    Raises ValueError or FileNotFoundError with one line for the user.
    """
    validate.prompt(args.prompt)
    seeds, (task,) = _tasks(args.run, [args.prompt])
    return _job(args.run, seeds, args.prompt, task)


def prepare_all(args: Args) -> tuple[dict[str, Callable[[], Job]], Task]:
    """What makes the job of each prompt, and the task of one of them. Raises as `prepare`."""
    if args.prompt:
        raise ValueError("--prompt and --prompts exclude each other; give one of them")
    prompts = read(args.prompts)
    seeds, tasks = _tasks(args.run, prompts)
    make_plan(tasks[0], seeds, *run_args.device(args.run))  # what does not fit is said once
    jobs = zip(prompts, tasks, strict=True)
    return {prompt: partial(_job, args.run, seeds, prompt, task) for prompt, task in jobs}, tasks[0]


def _tasks(args: RunArgs, prompts: list[str]) -> tuple[list[int], list[Task]]:
    """The seeds, and each prompt's task: the prior is loaded once, and the prompts embedded."""
    seeds = run_args.check_args(args)
    prior = run_args.load(args)
    run_args.warn([line for prompt in prompts for line in validate.warnings(prompt, prior.folder)])
    method = METHODS[args.method]
    return seeds, [make_task(prior, prompt, method, args.settings) for prompt in prompts]


def _job(args: RunArgs, seeds: list[int], prompt: str, task: Task) -> Job:
    """The job of a prompt, see `make_job`."""

    def score(seeds, views):
        return prompt_scores(prompt, views)

    return make_job(args, seeds, prompt, task, {"prompt": prompt}, score)


if __name__ == "__main__":
    validate.set_up_jax(sys.argv[1:])
    sys.exit(main())
