"""Single view to 3D: several seeds of one picture, objects that agree with it and differ behind.

    python experiments/single_view.py --image chair.png --seeds 0:4

The object is cut out by the picture's transparency, by --mask, or from a plain background.
Writes what text3d.py writes, to runs/<picture>-<hash>/, the picture beside the seeds in seeds.png;
metrics.json says of each seed how well it agrees with the picture at the picture's own view
("psnr_db", "mask_iou"). The same command again, whatever ended it, goes on from the last
checkpoint.
"""

import dataclasses
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import jax.numpy as jnp
import tyro

from dsd_jax.cli import run_args, validate
from dsd_jax.cli.job import Job, begin, make_job, refuse, run
from dsd_jax.cli.run_args import RunArgs
from dsd_jax.distillation import METHODS
from dsd_jax.engine import hosts, single_view
from dsd_jax.recipe import elevation, input_picture
from dsd_jax.rendering.scene import PLAIN

PRIOR = "toybox-1to3"


@dataclass(frozen=True)
class Args:
    """Optimise one 3D object per seed, each of which looks like the picture from its side."""

    image: Path | None = None
    """A picture of one object: any size and format that Pillow reads."""
    mask: Path | None = None
    """White where the object is, of the picture's size; takes the place of its transparency."""
    depth: Path | None = None
    """Depth map of the picture's size, brighter further away; scale and offset do not matter."""
    normal: Path | None = None
    """Normal map of the picture's size: red to the right, green up, blue to the viewer."""
    elevation_deg: str = "20"
    """How far above the horizon the picture's camera stands, or auto, to estimate that."""
    recentre: bool = True
    """Centre the object and scale it to 200/256 of the frame; else the framing is the picture's."""
    run: tyro.conf.OmitArgPrefixes[RunArgs] = field(default_factory=RunArgs)


def main(argv: list[str] | None = None) -> int:
    """Parse, check, run; returns the exit code."""
    began, argv = time.monotonic(), sys.argv[1:] if argv is None else argv
    try:
        run_args.start_if_asked(argv)
        job = prepare(parse(argv))
        plan = begin(job)
    except (ValueError, FileNotFoundError) as error:
        return refuse(error)
    return run(job, plan, began) if plan else 0


def parse(argv: list[str]) -> Args:
    """The command line over the defaults of its preset, and of its prior's camera."""
    prior = validate.flag_value(argv, "prior") or PRIOR
    usual = run_args.defaults(argv, single_view.PRESETS)
    settings = dataclasses.replace(usual.settings, **single_view.framing(prior))
    usual = dataclasses.replace(usual, prior=prior, settings=settings)
    args = tyro.cli(Args, args=argv, default=Args(run=usual), description=__doc__)
    if validate.flag_value(argv, "distance") is not None:
        return args
    framing = single_view.framing(prior, args.run.settings.fov_deg)
    settings = dataclasses.replace(args.run.settings, **framing)
    return dataclasses.replace(args, run=dataclasses.replace(args.run, settings=settings))


def prepare(args: Args) -> Job:
    """Check all that can be wrong, read the picture, load the prior; writes nothing.

    Raises ValueError or FileNotFoundError with one line for the user.
    """
    if args.image is None:
        raise ValueError("--image is missing; give a picture of one object: --image chair.png")
    elevation_deg = elevation.of_flag(args.elevation_deg)
    seeds = run_args.check_args(args.run)
    method, settings = METHODS[args.run.method], args.run.settings
    single_view.check(method, args.run.method, settings)
    background = PLAIN[settings.background]
    picture = input_picture.prepare(
        args.image,
        args.mask,
        args.depth,
        args.normal,
        background=background,
        fill=input_picture.FILL if args.recentre else None,
    )
    prior = run_args.load(args.run)
    warnings = validate.warnings("", prior.folder)
    run_args.warn([*warnings, *single_view.warnings(args.image, picture)])
    told = single_view.embed_picture(prior, picture, elevation_deg or 0.0)
    if elevation_deg is None:
        elevation_deg, _ = elevation.estimate(prior, told, settings)
        told = told._replace(elevation=jnp.deg2rad(elevation_deg))
        if hosts.is_first():
            print(f"elevation of the picture: {elevation_deg:g} degrees, as estimated")
    task = single_view.make_task(prior, told, method, settings)
    condition = {
        "image": args.image.name,
        "picture": single_view.fingerprint(picture),
        "elevation_deg": elevation_deg,
    }

    def score(seeds, views):
        return single_view.scores(job.folder, told, settings, seeds, views)

    shown = single_view.on_grey(picture, background)
    job = make_job(args.run, seeds, args.image.stem, task, condition, score, shown)
    return job


if __name__ == "__main__":
    validate.set_up_jax(sys.argv[1:])
    sys.exit(main())
