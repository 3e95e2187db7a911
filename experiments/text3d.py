"""Text to 3D: several seeds of one prompt, each a different object, all optimised together.

    python experiments/text3d.py --prompt "a house" --seeds 0:4

Writes to runs/<prompt>-<hash>/: config.json, metrics.json, seeds.png (one column a seed),
TensorBoard events, and for each seed seed_0000/ with turntable.mp4, views/az000.png ... az315.png
and the field (field.safetensors, field.json; read by `dsd_jax.export.scenes.load_scene`).
Every number of the recipe is a flag too: see --help. The same command again, whatever ended it,
goes on from the last checkpoint.

This command takes 7.5 minutes on 2 CPU cores, compiling included; expect the judge to accept 3 of 4
houses.
"""

import dataclasses
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import NamedSharding, PartitionSpec

import dsd_jax
from dsd_jax.distillation import METHODS
from dsd_jax.export.mesh import export_seeds, ring
from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.export.run_folder import write_json
from dsd_jax.metrics import judge
from dsd_jax.optimization import hosts, validate
from dsd_jax.optimization.checkpoint import Saved
from dsd_jax.optimization.checks import check
from dsd_jax.optimization.loop import interruptible
from dsd_jax.optimization.presets import PRESETS, Settings
from dsd_jax.optimization.reporter import SHEET, Reporter, labels
from dsd_jax.optimization.results import planned_memory_gb, summary, views_to_write, write_seeds
from dsd_jax.optimization.seeds import parse_seeds, unpadded
from dsd_jax.optimization.state import State
from dsd_jax.optimization.text_to_3d import (
    Plan,
    Task,
    load_states,
    make_blocks,
    make_plan,
    make_task,
    optimise_chunk,
    steps_done,
)
from dsd_jax.priors import load_prior

BAD_INPUT, INTERRUPTED = 2, 130


@dataclass(frozen=True)
class Args:
    """Optimise one 3D object per seed, all of whose views show what the prompt says."""

    prompt: str = ""
    """What to make, for instance "a house"."""
    seeds: str = "0:4"
    """0:16, 0:16:2, 3 or 1,5,9. The same seed gives the same object."""
    method: str = "dsd"
    """Distillation method: sds, csd, nfsd, ism, vsd, asd, sdi, fsd, cfd or dsd."""
    prior: str = "toybox"
    """toybox, a folder or hub id in diffusers layout, or a latent-diffusion .safetensors file."""
    preset: str = ""
    """quick, standard or authors; left out, quick on a CPU and standard on an accelerator."""
    out: Path = Path("runs")
    """Where the run's folder goes; or the folder of a run, to go on with just that one."""
    resume: bool = True
    """Go on from the checkpoints that the same command left; else start afresh."""
    checkpoint_minutes: float = 5.0
    """How often a checkpoint is written, beside those on SIGTERM, Ctrl-C and at the end."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Type of the prior's weights and of what its networks compute; left out, float32 on a CPU and
    bfloat16 on an accelerator. All else is float32 always."""
    max_memory_gb: float = 0.0
    """Memory that the run may use on one device, in 1e9 bytes; 0 asks the device."""
    devices: int = 0
    """How many devices (of each process) to use; 0 takes all. On a CPU, how many to make of it."""
    shard_prior: int = 0
    """How many devices share one copy of the prior's weights; 0 takes the fewest that suffice."""
    distributed: bool = False
    """Run with other processes, each started by this command: on the hosts of a TPU pod slice, or
    as the tasks of a Slurm job. Elsewhere the next three flags are needed too."""
    coordinator: str = ""
    """HOST:PORT of process 0, which all can reach."""
    process_id: str = ""
    """Which of them this process is, from 0 on."""
    processes: str = ""
    """How many there are."""
    mesh: bool = True
    """Write each object as mesh.glb, too; export_mesh.py does it later."""
    profile: Path | None = None
    """Folder for a trace of a few compiled steps, which ui.perfetto.dev and TensorBoard open."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = field(default_factory=Settings)


class Job(NamedTuple):
    """A checked command; `saved` are the seeds that have a checkpoint."""

    args: Args
    seeds: list[int]
    task: Task
    folder: Path
    config: dict[str, Any]
    saved: dict[int, Saved]


def main(argv: list[str] | None = None) -> int:
    """Parse, check, run; returns the exit code."""
    began, argv = time.monotonic(), sys.argv[1:] if argv is None else argv
    try:
        hosts.start_if_asked(argv)
        job = prepare(parse(argv))
        if job.args.resume and validate.is_complete(job.folder):
            shutil.rmtree(checkpoints(job.folder), ignore_errors=True)
            print(f"{job.folder} is complete: nothing to resume (--no-resume makes it anew)")
            return 0
        args = job.args
        plan = make_plan(
            job.task, job.seeds, args.max_memory_gb, args.devices, args.shard_prior, job.saved
        )
        validate.make_folder(job.folder)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    return run(job, plan, began)


def parse(argv: list[str]) -> Args:
    """The command line over the defaults of its preset."""
    preset = validate.flag_value(argv, "preset")
    if preset is None:
        preset = "quick" if jax.default_backend() == "cpu" else "standard"
    validate.choice("preset", preset, PRESETS)
    default = Args(preset=preset, settings=PRESETS[preset])
    return tyro.cli(Args, args=argv, default=default, description=__doc__)


def prepare(args: Args) -> Job:
    """Check all that can be wrong, load the prior, embed the prompt; writes nothing.

    Raises ValueError or FileNotFoundError with one line for the user.
    """
    validate.prompt(args.prompt)
    seeds = parse_seeds(args.seeds)
    validate.choice("method", args.method, METHODS)
    check(args.settings)
    validate.minutes(args.checkpoint_minutes)
    validate.writable(args.out)
    on_cpu = jax.default_backend() == "cpu"
    precision = args.precision or ("float32" if on_cpu else "bfloat16")
    with hosts.loading_place(args.shard_prior):
        prior = load_prior(args.prior, jnp.dtype(precision))
    for warning in validate.warnings(args.prompt, prior.folder):
        print(f"warning: {warning}", file=sys.stderr)
    config = {
        "prompt": args.prompt,
        "seeds": seeds,
        "method": args.method,
        "prior": args.prior,
        "preset": args.preset,
        "precision": precision,
        "settings": dataclasses.asdict(args.settings),
        "version": dsd_jax.__version__,
    }
    folder = validate.folder_of(args.out, args.prompt, config)
    task = make_task(prior, args.prompt, METHODS[args.method], args.settings)
    saved = load_states(task, checkpoints(folder), seeds) if args.resume else {}
    return Job(args, seeds, task, folder, config, saved)


def run(job: Job, plan: Plan, began: float) -> int:
    """Optimise all chunks, then write what they became."""
    loaded = time.monotonic()
    if hosts.is_first():
        write_json(job.folder / "config.json", job.config)
        if not job.args.resume:
            (job.folder / "metrics.json").unlink(missing_ok=True)
            shutil.rmtree(checkpoints(job.folder), ignore_errors=True)
        if plan.warning:
            print(f"warning: {plan.warning}", file=sys.stderr)
    hosts.wait("folder")
    scene, settings = job.task.scene, job.args.settings
    with Reporter(job.folder, plan.chunks, scene, settings, plan.mesh) as reporter:
        reporter.say(f"{job.folder}: {plan}; compiling ...")
        reporter.latest.update({seed: saved.metrics for seed, saved in job.saved.items()})
        with interruptible() as stop:
            chunks = optimise(job, plan, reporter, stop)
            stopped = stop()
        optimised = time.monotonic()
        if stopped == signal.SIGTERM or not chunks:
            reporter.say("stopped; the same command goes on from here")
            return 128 + stopped
        if stopped:
            reporter.say(
                "stopped; writing the results of the steps done (the same command goes on)"
            )
        views = write_results(job, chunks, plan.mesh, reporter)
        rendered = time.monotonic()
        hosts.wait("views")
        if hosts.is_first():
            if job.args.mesh and not stopped:
                write_meshes(job, [seed for seeds, _ in chunks for seed in seeds], reporter)
            steps = {seed: steps_done(states) for seeds, states in chunks for seed in seeds}
            metrics = {
                **summary(job.args.prompt, steps, reporter.latest, views),
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
    hosts.wait("results")
    if hosts.is_first():
        if not stopped:
            shutil.rmtree(checkpoints(job.folder), ignore_errors=True)
        print(job.folder)
    return INTERRUPTED if stopped else 0


def checkpoints(folder: Path) -> Path:
    """Folder of a run's checkpoints; it goes when the run is complete."""
    return folder / "checkpoints"


def optimise(job: Job, plan: Plan, reporter: Reporter, stop) -> list[tuple[list, State]]:
    """The seeds of each chunk that was begun, and those states that this process has."""
    args, blocks = job.args, make_blocks(job.task, plan.mesh)
    done = []
    for index, chunk in enumerate(plan.chunks):
        if stop():
            break
        states = optimise_chunk(
            job.task,
            chunk,
            blocks,
            plan.mesh,
            checkpoints(job.folder),
            reporter.watch(index),
            stop,
            lambda: reporter.describe("compiling ..."),
            job.saved,
            args.checkpoint_minutes,
            "" if index or args.profile is None else args.profile,
        )
        done.append((chunk[: unpadded(chunk)], hosts.own_rows(states)))
    return done


def write_meshes(job: Job, seeds: list[int], reporter: Reporter) -> None:
    """seed_0000/mesh.glb and so on; a seed that has none is named."""
    settings = job.args.settings
    cameras = ring(judge.AZIMUTHS_DEG, judge.ELEVATION_DEG, settings.distance, settings.fov_deg)
    reporter.describe("meshes")
    export_seeds(job.folder, seeds, cameras, say=lambda line: None, complain=reporter.say)


def write_results(job: Job, chunks, mesh, reporter: Reporter) -> np.ndarray:
    """Every seed's folder and the contact sheet; returns the views [n, 8, h, w, 3] of all seeds."""
    scene, settings = job.task.scene, job.args.settings
    on_view = reporter.count("rendering", len(chunks) * views_to_write(settings))
    by_seed = NamedSharding(mesh, PartitionSpec("seed"))
    found: dict[int, np.ndarray] = {}
    for seeds, rows in chunks:
        states = hosts.spread_rows(rows, by_seed)
        views = write_seeds(job.folder, seeds, states, scene, settings, mesh, on_view)
        found.update(zip(seeds, views, strict=True))
    seeds = [seed for seed in job.seeds if seed in found]
    views = np.stack([found[seed] for seed in seeds])
    if hosts.is_first():
        save_png(job.folder / SHEET, contact_sheet(views, labels(seeds), tile=192))
    return views


if __name__ == "__main__":
    validate.set_up_jax(sys.argv[1:])
    sys.exit(main())
