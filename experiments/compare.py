"""Comparison of the methods: the same prompts, seeds and settings, in 2D or 3D.

    python experiments/compare.py --task 2d --seeds 0:16
    python experiments/compare.py --task 3d --seeds 0:8 --prompts "a house" "a chair" "a tree"

A method is one of `dsd_jax/distillation/`, or `ddim`: the prior's own samples, always made, which
all others are compared with. METHOD@STEPS gives it other steps: dsd-star@25, ddim@100. The settings
of text3d.py are flags too; --set sds:guidance_scale=10 changes one for one method.

In 2D methods are Adam's, `dsd` with the gradient of 3D, and two more move latents along an ODE:

    dsd-star   the seed's ODE itself
    dsd-plain  the gradient of 3D in its published, interpolated form, by plain steps of size one
               from the seed's one-step prediction at T, see `images2d.descend`; in 50 steps
               (--steps is not for it), with the ODE simulated on as many; on fewer it drifts off
               its seed: --set dsd-plain:ode_points=11

Every result is one file, OUT/<method>/<prompt>.npz, and what is there is not made again: the
command can be repeated after an interruption, `--methods` splits the work over processes, and
`--no-score` leaves the judging to later. Writes OUT/table.md, table.csv, scores.json, plot.png
(fidelity against diversity) and grid_<prompt>.png (methods x seeds); in 3D also four views of each
object, OUT/<method>/<prompt>.png.

On 2 CPU cores `--prompts "a chair" "a tree" --seeds 0:4 --steps 50 --methods dsd-star,dsd,sds,fsd`
takes 8 minutes; expect dsd-star at DDIM's own numbers, and sds at half of DDIM's diversity.
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from dsd_jax.cli import overrides, validate
from dsd_jax.cli.prompts import read
from dsd_jax.distillation import METHODS
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.export.pictures import contact_sheet, save_png, to_uint8
from dsd_jax.files import atomic_path, slug
from dsd_jax.metrics import clip, efficientnet, judge
from dsd_jax.metrics.bank import load_bank
from dsd_jax.priors import choose_precision, load_prior
from dsd_jax.recipe.checks import check
from dsd_jax.recipe.presets import PRESETS, Settings
from dsd_jax.studies import batch, comparison, evaluations, images2d

PICTURES = Settings(steps=200, views=1, grid_rate=0.03, t_min=0.02, eta=0.0)
STAR, PLAIN = "dsd-star", "dsd-plain"
AZIMUTHS_DEG = (45.0, 135.0, 225.0, 315.0)
# What a kind starts from in place of the settings that all share.
OWN = {PLAIN: {"steps": 50, "anchor": "interpolated"}}


@dataclass(frozen=True)
class Args:
    """Run the methods and compare them."""

    task: str = "2d"
    """2d: free pictures; 3d: objects."""
    methods: str = ""
    """What to compare, as sds,dsd,dsd-star@25 (empty: all methods)."""
    prompts: tuple[str, ...] = (str(Path(__file__).parent / "prompts" / "study.txt"),)
    """Prompts, or files with one a line; what follows a # is a comment."""
    seeds: str = "0:16"
    """As in text3d.py; at least two."""
    out: Path | None = None
    """Folder of the results (None: runs/compare_2d or runs/compare_3d)."""
    changes: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = ()
    """Settings of one method alone, METHOD:SETTING=VALUE,SETTING=VALUE."""
    preset: str = "standard"
    """What 3D starts from: quick, standard or authors."""
    prior: str = "toybox"
    """As in text3d.py."""
    precision: Literal["float32", "bfloat16"] | None = None
    """As in text3d.py."""
    ddim_steps: int = 50
    """Grid points of the prior's own samples."""
    space: str = "latents"
    """What is optimised in 2D: latents, pixels, or network."""
    azimuth_deg: float = 30.0
    elevation_deg: float = 15.0
    """The view in 2D, for a prior that knows cameras."""
    clip: str = ""
    """Folder of CLIP's weights (transformers' CLIPModel), for its similarity to the prompt."""
    score: bool = True
    """Judge what has been made."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = dataclasses.field(default_factory=Settings)


class Entry(NamedTuple):
    """A row of the table: its name, method or `ddim`, `dsd-star` or `dsd-plain`, and settings."""

    name: str
    kind: str
    settings: Settings


class Job(NamedTuple):
    """What is to be done."""

    args: Args
    out: Path
    entries: list[Entry]
    prompts: list[str]
    seeds: list[int]
    prior: Any
    encoders: clip.Clip | None


def main(argv: list[str] | None = None) -> int:
    """Make what is missing, then judge all that is there."""
    try:
        job = prepare(sys.argv[1:] if argv is None else argv)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    make = make_pictures if job.args.task == "2d" else make_objects
    for entry in job.entries:
        missing = [prompt for prompt in job.prompts if not result(job, entry, prompt).exists()]
        if missing:
            make(job, entry, missing)
    if job.args.score:
        report(job)
    return 0


def prepare(argv: list[str]) -> Job:
    """Check all that can be wrong, and load the prior."""
    task = validate.flag_value(argv, "task") or "2d"
    validate.choice("task", task, ("2d", "3d"))
    preset = validate.flag_value(argv, "preset") or "standard"
    validate.choice("preset", preset, PRESETS)
    base = PICTURES if task == "2d" else PRESETS[preset]
    args = tyro.cli(Args, args=argv, default=Args(settings=base), description=__doc__)
    prompts, seeds, entries = read(args.prompts), parse_seeds(args.seeds), read_entries(args)
    if len(seeds) < 2:
        raise ValueError("--seeds must name at least two: diversity is between seeds")
    validate.choice("space", args.space, images2d.SPACES)
    out = args.out or Path(f"runs/compare_{task}")
    validate.writable(out)
    if args.score:
        efficientnet.weights_path()
    encoders = clip.load_clip(args.clip) if args.clip else None
    precision = choose_precision(args.precision)
    prior = load_prior(args.prior, jnp.dtype(precision))
    prior.encode_prompt(prior.params, prompts)  # raises for a prior that takes no prompt
    for line in dict.fromkeys(w for p in prompts for w in validate.warnings(p, prior.folder)):
        print(f"warning: {line}", file=sys.stderr)
    kept = ("task", "seeds", "prior", "ddim_steps")
    kept += ("space", "azimuth_deg", "elevation_deg") if task == "2d" else ()
    config = {name: getattr(args, name) for name in kept} | {"precision": precision}
    validate.remember(out, config | {"settings": dataclasses.asdict(args.settings)})
    for name, kind, settings in entries:
        validate.remember(out / slug(name), dataclasses.asdict(settings) | {"method": kind})
    return Job(args, out, entries, prompts, seeds, prior, encoders)


def read_entries(args: Args) -> list[Entry]:
    """The rows, DDIM's first. Refuses what is no method, or settings that cannot work."""
    two = args.task == "2d"
    valid = [*METHODS, "ddim", *([STAR, PLAIN] if two else [])]
    names = [name.strip() for name in args.methods.split(",") if name.strip()] or valid
    names = list(dict.fromkeys(["ddim", *names]))
    changes = [overrides.parse(text) for text in args.changes]
    kinds = {name: name.partition("@")[0] for name in names}
    for name, _ in changes:
        validate.choice("set", name, {*names, *kinds.values()})
    if two and args.settings.views != 1:
        raise ValueError(f"--views must be 1 with --task 2d, not {args.settings.views}")
    entries = []
    for name, kind in kinds.items():
        validate.choice("methods", kind, valid)
        own = {"steps": args.ddim_steps} if kind == "ddim" else dict(OWN.get(kind, {}))
        for target, values in changes:
            own |= values if target in (name, kind) else {}
        _, at, steps = name.partition("@")
        if at and not steps.isdigit():
            raise ValueError(f"--methods {name}: what follows @ must be a number of steps")
        own |= {"steps": int(steps)} if at else {}
        if kind == PLAIN:
            own.setdefault("ode_points", own["steps"] + 1)
        settings = dataclasses.replace(args.settings, **own)
        check(settings)
        if kind in ("ddim", STAR) and settings.steps < 2:
            raise ValueError(f"{name} needs at least 2 steps: an ODE needs two points")
        if kind in (STAR, PLAIN) and args.space != "latents":
            raise ValueError(f"{kind} moves latents alone, not --space {args.space}; leave it out")
        entries.append(Entry(name, kind, settings))
    return entries


def result(job: Job, entry: Entry, prompt: str) -> Path:
    """The file of a method and prompt."""
    return job.out / slug(entry.name) / f"{slug(prompt)}.npz"


def save(job: Job, entry: Entry, prompt: str, seconds: float, **arrays) -> None:
    """Keep a result and say so."""
    arrays |= {"seconds": seconds, "device": jax.devices()[0].device_kind}
    with atomic_path(result(job, entry, prompt)) as temporary:
        np.savez_compressed(temporary, **arrays)
    print(f"{entry.name}: {prompt}: {seconds:.0f} s", flush=True)


def picture_run(kind: str) -> Callable[[images2d.Task, list[int]], jax.Array]:
    """(task, seeds) -> pictures [n, H, W, 3] of a row of the table in 2D."""
    if kind == "ddim":
        return lambda task, seeds: images2d.ddim(task, seeds, task.settings.steps)
    ways = {STAR: images2d.follow, PLAIN: images2d.descend}
    way = ways.get(kind, images2d.optimise)
    return lambda task, seeds: way(task, seeds).images


def asked(job: Job, entry: Entry) -> int:
    """Evaluations of one seed."""
    method, run = METHODS.get(entry.kind, METHODS["dsd"]), picture_run(entry.kind)
    settings, in_3d = entry.settings, job.args.task == "3d" and entry.kind in METHODS
    counted = evaluations.in_3d if in_3d else evaluations.count
    return counted(job.prior, method, settings, lambda task: run(task, job.seeds[:1]))


def make_pictures(job: Job, entry: Entry, prompts: list[str]) -> None:
    """The pictures of a method in 2D, prompt by prompt."""
    method, run, args = METHODS.get(entry.kind, METHODS["dsd"]), picture_run(entry.kind), job.args
    place = np.deg2rad(args.azimuth_deg), np.deg2rad(args.elevation_deg)
    count = asked(job, entry)
    for prompt in prompts:
        began = time.monotonic()
        task = images2d.make_task(job.prior, prompt, method, entry.settings, *place, args.space)
        views = to_uint8(np.asarray(run(task, job.seeds)))[:, None]
        save(job, entry, prompt, time.monotonic() - began, views=views, evaluations=count)


def make_objects(job: Job, entry: Entry, prompts: list[str]) -> None:
    """The objects of a method, prompts together; of DDIM four pictures around each object."""
    prior, settings = job.prior, entry.settings
    if entry.kind == "ddim":
        count = asked(job, entry) * len(AZIMUTHS_DEG)
        for prompt in prompts:
            began, place = time.monotonic(), (AZIMUTHS_DEG, judge.ELEVATION_DEG)
            views = batch.sample_views(prior, prompt, settings, job.seeds, settings.steps, *place)
            save(job, entry, prompt, time.monotonic() - began, views=views, evaluations=count)
        return
    count = asked(job, entry)
    made = batch.make_objects(prior, prompts, METHODS[entry.kind], settings, job.seeds)
    for prompt, objects in zip(prompts, made, strict=True):
        save(job, entry, prompt, evaluations=count, **objects._asdict())


def report(job: Job) -> None:
    """Judge all rows; writes the table, the plot and the pictures."""
    found = {entry.name: {p: dict(np.load(result(job, entry, p))) for p in job.prompts}
             for entry in job.entries}  # fmt: skip
    rows = comparison.judged(found, "ddim", load_bank(), job.encoders)
    print(comparison.write(job.out, rows, "ddim", len(job.seeds), devices_of(found)))
    draw(job, found)


def devices_of(found: dict[str, dict[str, dict]]) -> str:
    """What the results were made on."""
    devices = {str(arrays["device"]) for each in found.values() for arrays in each.values()}
    return ", ".join(sorted(devices))


def draw(job: Job, found: dict[str, dict[str, dict]]) -> None:
    """A grid of methods x seeds for each prompt; in 3D four views of each object too."""
    labels = [f"seed {seed}" for seed in job.seeds]
    for prompt in job.prompts:
        shown = found["ddim"][prompt]["views"]
        four = {name: comparison.same_views(each[prompt]["views"], shown)
                for name, each in found.items()}  # fmt: skip
        grid = np.stack([views[:, 0] for views in four.values()], 1)
        sheet = contact_sheet(grid, labels, tile=96, rows=list(four))
        save_png(job.out / f"grid_{slug(prompt)}.png", sheet)
        for entry in job.entries if job.args.task == "3d" else []:
            sheet = contact_sheet(four[entry.name], labels, tile=96)
            save_png(result(job, entry, prompt).with_suffix(".png"), sheet)


if __name__ == "__main__":
    validate.set_up_jax()
    sys.exit(main())
