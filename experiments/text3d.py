"""Text to 3D: several seeds of one prompt, each a different object, all optimised together.

    python experiments/text3d.py --prompt "a house" --seeds 0:4

Writes to runs/<prompt>-<hash>/: config.json, metrics.json, seeds.png (one column a seed),
TensorBoard events, and for each seed seed_0000/ with turntable.mp4, views/az000.png ... az315.png
and the field (field.safetensors, field.json; read by `dsd_jax.export.scenes.load_scene`).
Every number of the recipe is a flag too: see --help.

This command takes 7 minutes on 2 CPU cores, and 16 seeds with `standard` 2.4 minutes on one H100,
compiling included; expect the judge to accept 3 of 4 houses.
"""

import dataclasses
import resource
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import dsd_jax
from dsd_jax.distillation import METHODS
from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.export.run_folder import run_folder, write_json
from dsd_jax.optimization import validate
from dsd_jax.optimization.loop import interruptible, seed_mesh
from dsd_jax.optimization.presets import PRESETS, Settings, check
from dsd_jax.optimization.reporter import SHEET, Reporter, labels
from dsd_jax.optimization.results import score, views_to_write, write_seeds
from dsd_jax.optimization.seeds import parse_seeds, unpadded
from dsd_jax.optimization.state import State
from dsd_jax.optimization.text_to_3d import (
    Plan,
    Task,
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
    """Distillation method: dsd or sds."""
    prior: str = "toybox"
    """toybox, a folder or hub id in diffusers layout, or a latent-diffusion .safetensors file."""
    preset: str = ""
    """quick or standard; left out, quick on a CPU and standard on an accelerator."""
    out: Path = Path("runs")
    """Where the run's folder goes."""
    resume: bool = False
    """Go on from the checkpoints of the same command."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Type of the prior's weights and of what its networks compute; left out, float32 on a CPU and
    bfloat16 on an accelerator. All else is float32 always."""
    max_memory_gb: float = 0.0
    """Memory that the run may use on one device, in 1e9 bytes; 0 asks the device."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = field(default_factory=Settings)


class Job(NamedTuple):
    """A checked command."""

    args: Args
    seeds: list[int]
    task: Task
    folder: Path
    config: dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Parse, check, run; returns the exit code."""
    began = time.monotonic()
    try:
        job = prepare(parse(sys.argv[1:] if argv is None else argv))
        if job.args.resume and validate.is_complete(job.folder):
            print(f"{job.folder} is complete: nothing to resume")
            return 0
        plan = make_plan(job.task, job.seeds, job.args.max_memory_gb)
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
    validate.writable(args.out)
    on_cpu = jax.default_backend() == "cpu"
    precision = args.precision or ("float32" if on_cpu else "bfloat16")
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
    task = make_task(prior, args.prompt, METHODS[args.method], args.settings)
    return Job(args, seeds, task, run_folder(args.out, args.prompt, config), config)


def run(job: Job, plan: Plan, began: float) -> int:
    """Optimise all chunks, then write what they became."""
    loaded = time.monotonic()
    write_json(job.folder / "config.json", job.config)
    scene, settings = job.task.scene, job.args.settings
    mesh = seed_mesh(len(plan.chunks[0]))
    if plan.warning:
        print(f"warning: {plan.warning}", file=sys.stderr)
    with Reporter(job.folder, plan.chunks, scene, settings, mesh) as reporter:
        reporter.say(f"{job.folder}: {plan}; compiling ...")
        with interruptible() as stop:
            chunks = optimise(job, plan, mesh, reporter, stop)
            stopped = stop()
        optimised = time.monotonic()
        if stopped:
            reporter.say("stopped; writing the results of the steps done (--resume goes on later)")
        views = write_results(job, chunks, mesh, reporter)
        metrics = {
            **summary(job, chunks, reporter, views),
            "planned_memory_gb": planned_memory_gb(plan),
            "interrupted": stopped,
            "seconds": {
                "loading": round(loaded - began, 1),
                "optimising": round(optimised - loaded, 1),
                "rendering": round(time.monotonic() - optimised, 1),
                "total": round(time.monotonic() - began, 1),
            },
        }
        write_json(job.folder / "metrics.json", metrics)
    if not stopped:
        shutil.rmtree(checkpoints(job), ignore_errors=True)
    print(job.folder)
    return INTERRUPTED if stopped else 0


def checkpoints(job: Job) -> Path:
    """Folder of the run's checkpoints; it goes when the run is complete."""
    return job.folder / "checkpoints"


def optimise(job: Job, plan: Plan, mesh, reporter: Reporter, stop) -> list[tuple[list, State]]:
    """The seeds and the states of each chunk that was begun."""
    blocks = make_blocks(job.task, mesh)
    done = []
    for index, chunk in enumerate(plan.chunks):
        if stop():
            break
        states = optimise_chunk(
            job.task,
            chunk,
            blocks,
            mesh,
            checkpoints(job),
            reporter.watch(index),
            stop,
            lambda: reporter.describe("compiling ..."),
            job.args.resume,
        )
        done.append((chunk[: unpadded(chunk)], jax.device_get(states)))
    return done


def write_results(job: Job, chunks, mesh, reporter: Reporter) -> np.ndarray:
    """Every seed's folder and the contact sheet; returns the views [n, 8, h, w, 3]."""
    scene, settings = job.task.scene, job.args.settings
    on_view = reporter.count("rendering", len(chunks) * views_to_write(settings))
    views = [
        write_seeds(job.folder, seeds, states, scene, settings, mesh, on_view)
        for seeds, states in chunks
    ]
    views, seeds = np.concatenate(views), [seed for chunk, _ in chunks for seed in chunk]
    save_png(job.folder / SHEET, contact_sheet(views, labels(seeds), tile=192))
    return views


def summary(job: Job, chunks, reporter: Reporter, views: np.ndarray) -> dict[str, Any]:
    """metrics.json: overall and per seed."""
    scores = score(job.args.prompt, views)
    fidelity = scores["fidelity"]
    seeds = {seed: steps_done(states) for chunk, states in chunks for seed in chunk}
    per_seed = {
        str(seed): {
            "steps": steps,
            "diversity": scores["diversity_per_seed"][i],
            "accepted": fidelity["per_seed"] and fidelity["per_seed"][i],
            "neighbours": fidelity["neighbours"] and fidelity["neighbours"][i],
            **reporter.latest.get(seed, {}),
        }
        for i, (seed, steps) in enumerate(seeds.items())
    }
    return {
        "diversity": scores["diversity"],
        "fidelity": {k: fidelity.get(k) for k in ("category", "accepted", "reason")},
        "iterations_per_second": reporter.steps_per_second,
        "seeds": per_seed,
        "device": jax.devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "peak_memory_gb": peak_memory_gb(),
    }


def planned_memory_gb(plan: Plan) -> dict[str, float]:
    """What `plan` expects one device to hold, in 1e9 bytes: the parts, and in all."""
    parts = {**plan.needs._asdict(), "in_all": plan.bytes_needed}
    return {name: round(size / 1e9, 6) for name, size in parts.items()}


def peak_memory_gb() -> dict[str, float]:
    """Most 1e9 bytes held so far, by the process and by the device that held most."""
    peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use", 0) for d in jax.local_devices()]
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"host": round(resident / 1e9, 2), "device": round(max(peaks) / 1e9, 2)}


if __name__ == "__main__":
    validate.set_up_jax()
    sys.exit(main())
