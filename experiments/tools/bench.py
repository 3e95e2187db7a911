"""How fast everything is, and how far that is from what the hardware allows: one table in one run.

    python experiments/tools/bench.py                                  # Toybox, on what there is
    python experiments/tools/bench.py --model both --out runs/bench.json --minutes 25
    python experiments/tools/bench.py --model sd21-base --only unet vae --torch
    python experiments/tools/bench.py --scaling --out runs/scaling.json    # cost by number of seeds

Weights are random: speed does not depend on them. A row's floor is the larger of its
floating-point operations (XLA's count) over the measured rate of a large matrix product, and its
bytes (inputs and outputs, each once) over the measured bandwidth of a copy; the ratio is the
measured time over that. Times are medians of repeats after a warm-up, compiling apart; those of
renderings and steps are for one seed among those that run together. With --out the rows so far are
in the file at any moment.
"""

import gc
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import jax
import jax.numpy as jnp
from benchmarks import menu, peer, scaling
from benchmarks.clock import Care, clock
from benchmarks.networks import configs, load
from benchmarks.work import Ready, Work, ceilings

from dsd_jax.cli import flags, validate
from dsd_jax.files import write_json
from dsd_jax.priors import choose_precision
from dsd_jax.recipe.parts import OdeSettings

MODES = get_args(get_type_hints(OdeSettings)["kind"])
SCALING_SEEDS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Args:
    """Measure the parts of a run and whole steps."""

    model: Literal["toybox", "sd21-base", "both"] = "toybox"
    """Whose networks; the field and the steps are those of its preset, standard or authors."""
    only: tuple[str, ...] = ()
    """unet, vae, grid, render, cache or iteration (default: all)."""
    seeds: tuple[int, ...] = ()
    """Numbers of seeds that run together (default: 1 16)."""
    ode: tuple[str, ...] = ()
    """How the ODE is followed in steps: exact, nodes or table (default: all)."""
    steps: int | None = None
    """Steps that a seed-iteration is the mean of; t falls over its whole range in them."""
    out: Path | None = None
    """A .json file for the rows."""
    minutes: float = 0.0
    """Do not begin a row that may end later than this; 0 is no limit."""
    scaling: bool = False
    """Steps alone, with 1, 2, 4, ... 64 seeds; with --out a picture beside it, too."""
    torch: bool = False
    """Time PyTorch, too, on the work of the networks (extra `parity`)."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Of weights and networks; left out, float32 on a CPU and bfloat16 on an accelerator."""
    miniature: bool = False
    """Tiny sizes of everything, to see that this program works."""


def main(argv: list[str] | None = None) -> int:
    """Parse, check, measure; returns the exit code."""
    try:
        args = flags.cli(Args, argv, __doc__)
        check(args)
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    bench = Bench(args)
    bench.run()
    if args.scaling:
        print("\n" + scaling.table(bench.rows))
        if args.out:
            scaling.picture(bench.rows, args.out.with_suffix(".png"))
    return int(bench.failed)


def check(args: Args) -> None:
    """Refuse what cannot work, before anything is compiled; starts no backend.

    Raises ValueError or ImportError with one line for the user.
    """
    for name in args.only:
        validate.choice("only", name, menu.NAMES)
    for mode in args.ode:
        validate.choice("ode", mode, MODES)
    if min(args.seeds, default=1) < 1:
        raise ValueError(f"--seeds are numbers of seeds, at least 1, not {min(args.seeds)}")
    if args.steps is not None and args.steps < 1:
        raise ValueError(f"--steps must be at least 1, not {args.steps}")
    if args.minutes < 0:
        raise ValueError(f"--minutes must not be negative, not {args.minutes:g}")
    if args.out:
        if args.out.suffix != ".json":
            raise ValueError(f"--out {args.out} has to end in .json")
        validate.writable(args.out.parent)
        args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in ("torch", "diffusers") if args.torch else ():
        if find_spec(name) is None:
            raise ImportError(f"{name} is not installed: pip install '.[parity]' or leave --torch")


class Bench:
    """The rows so far, the ceilings they are compared with, and the time that is left."""

    def __init__(self, args: Args):
        self.args, self.began, self.longest = args, time.monotonic(), 0.0
        self.rows: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        self.failed = False
        self.peaks = {"operations": 0.0, "bytes": 0.0}
        self.care = Care(0.0, 3) if args.miniature else Care()
        self.theirs = run_torch(args, self.care) if args.torch else []
        self.precision = choose_precision(args.precision)
        self.sizes = sizes_of(args, jax.default_backend() == "cpu")

    def run(self) -> None:
        """Measure everything that is asked for."""
        sizes, args = self.sizes, self.args
        print("| model | work | size | with | ms | achieved | floor, ms | ratio |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        dtype = jnp.dtype(self.precision)
        for work in ceilings(sizes.matrix, sizes.copied, dtype):
            self.measure("", work)
        only = ("iteration",) if args.scaling else args.only or menu.NAMES
        seeds = args.seeds or (SCALING_SEEDS if args.scaling else (1, 16))
        for model in models_of(args):
            task, self.longest = menu.make_task(load(model, dtype), model, sizes), 0.0
            works = menu.works(task, model, sizes, seeds, args.ode or MODES)
            for name in only:
                for work in works[name]:
                    self.measure(model, work)
            del task, works

    def measure(self, model: str, work: Work) -> None:
        """Add a row, or say why there is none."""
        began, limit = time.monotonic(), 60 * self.args.minutes
        if limit and began - self.began + self.longest > limit:
            self.skip(model, work, f"no time left of {self.args.minutes:g} minutes")
            return
        try:
            ready = work.prepare()
            took = clock(ready.call, jax.block_until_ready, ready.units, self.care)
        except jax.errors.JaxRuntimeError as error:
            short = "RESOURCE_EXHAUSTED" in str(error)
            self.failed |= not short
            self.skip(model, work, "out of memory" if short else str(error).splitlines()[0])
            return
        finally:
            gc.collect()
        if work.name == "matrix product":
            self.peaks["operations"] = ready.operations / took.least * 1e3
        if work.name == "copy":
            self.peaks["bytes"] = ready.bytes / took.least * 1e3
        self.add(model, work, ready, "jax", took)
        for job, how, their_time in self.theirs:
            if (job.model, job.work) == (model, work.name) and job.label in ("", work.size):
                self.add(model, work, ready, how, their_time)
        self.longest = max(self.longest, time.monotonic() - began)

    def add(self, model: str, work: Work, ready: Ready, how: str, took) -> None:
        """A row in the table and in the file."""
        needs = {"operations": ready.operations, "bytes": ready.bytes}
        floors = {k: 1e3 * needs[k] / self.peaks[k] if self.peaks[k] else 0.0 for k in needs}
        bound = max(floors, key=lambda k: floors[k])
        rate = {k: need / took.median * 1e3 for k, need in needs.items()}
        row = {
            "model": model,
            "work": work.name,
            "size": work.size,
            "with": how,
            "milliseconds": took.median,
            "least_milliseconds": took.least,
            "most_milliseconds": took.most,
            **needs,
            "tflop_per_second": rate["operations"] / 1e12,
            "gb_per_second": rate["bytes"] / 1e9,
            "bound": bound,
            "floor_milliseconds": floors[bound],
            "ratio": took.median / floors[bound] if floors[bound] else 1.0,
        }
        self.rows.append(row)
        print(line(row), flush=True)
        self.write()

    def skip(self, model: str, work: Work, reason: str) -> None:
        """Say, on stderr and in the file, that a row is missing."""
        row = {"model": model, "work": work.name, "size": work.size, "reason": reason}
        self.skipped.append(row)
        print("skipped:", ", ".join(value for value in row.values() if value), file=sys.stderr)
        self.write()

    def write(self) -> None:
        """Everything measured so far, to --out."""
        if not self.args.out:
            return
        write_json(self.args.out, {
            "device": jax.devices()[0].device_kind,
            "devices": jax.local_device_count(),
            "jax": jax.__version__,
            "precision": self.precision,
            "peak_tflop_per_second": self.peaks["operations"] / 1e12,
            "peak_gb_per_second": self.peaks["bytes"] / 1e9,
            "seconds": round(time.monotonic() - self.began, 1),
            "rows": self.rows,
            "skipped": self.skipped,
        })  # fmt: skip


def run_torch(args: Args, care: Care) -> list:
    """PyTorch's times, from a process that is gone before JAX takes the device's memory."""
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    names, both = set(args.only or menu.NAMES), []
    for on_cpu in (False, True):
        sizes = sizes_of(args, on_cpu)
        found = peer.ceilings(sizes)
        for model in models_of(args):
            found += peer.jobs(model, configs(model), sizes, names)
        both.append(found)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peer.run, both[0], both[1], args.precision, care).result()


def sizes_of(args: Args, on_cpu: bool) -> menu.Sizes:
    """How much of everything."""
    sizes = menu.MINIATURE if args.miniature else menu.CPU if on_cpu else menu.ACCELERATOR
    return sizes if args.steps is None else sizes._replace(steps=args.steps)


def models_of(args: Args) -> tuple[str, ...]:
    """The names of the models."""
    return tuple(menu.PRESET) if args.model == "both" else (args.model,)


def line(row: dict[str, Any]) -> str:
    """A row of the Markdown table."""
    by_operations = row["bound"] == "operations"
    rate = (row["tflop_per_second"], "TFLOP/s") if by_operations else (row["gb_per_second"], "GB/s")
    cells = [row["model"], row["work"], row["size"], row["with"], f"{row['milliseconds']:.3g}",
             f"{rate[0]:.3g} {rate[1]}", f"{row['floor_milliseconds']:.3g}",
             f"{row['ratio']:.3g}"]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    validate.set_up_jax()
    sys.exit(main())
