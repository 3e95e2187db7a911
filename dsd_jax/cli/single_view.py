"""Single view to 3D: several seeds of one picture, objects that agree with it and differ behind.

    python experiments/single_view.py --image chair.png --seeds 0:4
    python experiments/single_view.py --image front.png --image-azimuth 0 \
        --image back.png --image-azimuth 180

The object is cut out by the picture's transparency, by --mask, or from a plain background. How high
its camera stood is estimated; --elevation-deg says it.
Writes what text3d.py writes, to runs/<picture>-<hash>/, the picture beside the seeds in seeds.png;
metrics.json says of each seed how well it agrees with the picture at the picture's own view
("psnr_db", "mask_iou"). The same command again, whatever ended it, goes on from the last
checkpoint.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import UseAppendAction

from dsd_jax import __version__
from dsd_jax.cli import flags, job, run_args, validate
from dsd_jax.cli.job import Job, make_job
from dsd_jax.cli.run_args import RunArgs
from dsd_jax.engine.plan import make_plan
from dsd_jax.engine.results import recipe_config
from dsd_jax.engine.task import picture_task, say_elevation
from dsd_jax.files import read_json
from dsd_jax.priors import fov_deg_of
from dsd_jax.recipe.input_picture import InputPicture
from dsd_jax.recipe.input_pictures import check, read_pictures
from dsd_jax.recipe.presets import PRESETS, framed, of_picture
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.rendering.scene import PLAIN

PRIOR = "toybox-1to3"


@dataclass(frozen=True)
class Args:
    """Optimise one 3D object per seed, each of which looks like the picture from its side."""

    image: UseAppendAction[tuple[Path, ...]] = ()
    """A picture of one object, any size and format that Pillow reads; or several, one after the
    other, each with its --image-azimuth."""
    image_azimuth: UseAppendAction[tuple[float, ...]] = ()
    """From where each of several pictures was taken, in degrees from the first: 0, then 90 from the
    right of who took it, 180 from behind."""
    mask: UseAppendAction[tuple[Path, ...]] = ()
    """White where the object is, of the picture's size; takes the place of its transparency."""
    depth: Path | None = None
    """Depth map of the (first) picture's size, brighter further away; scale and offset do not
    matter."""
    normal: Path | None = None
    """Normal map of that size: red to the right, green up, blue to the viewer."""
    elevation_deg: UseAppendAction[tuple[str, ...]] = ()
    """How far above the horizon the picture's camera stands; auto, or left out, has the prior
    estimate it. Of several pictures for all, or for each."""
    recentre: bool = True
    """Centre the object and scale it to 200/256 of the frame; else the framing is the picture's."""
    run: tyro.conf.OmitArgPrefixes[RunArgs] = field(default_factory=RunArgs)


def main(argv: Sequence[str]) -> int:
    """Parse, check, run; returns the exit code."""
    return job.main(argv, lambda argv: prepare(*parse(argv)))


def parse(argv: Sequence[str]) -> tuple[Args, Recipe]:
    """The command line over the defaults of its preset, and of its prior's camera."""
    prior = flags.flag_value(argv, "prior") or PRIOR
    usual = fov_deg_of(prior)
    presets = {name: of_picture(recipe, usual) for name, recipe in PRESETS.items()}
    own, recipe = run_args.defaults(argv, presets, prior)
    args, recipe = run_args.parse(Args, argv, __doc__ or "", Args(run=own), recipe)
    names = ("distance", "camera.distance")
    if all(flags.flag_value(argv, name) is None for name in names):
        recipe = framed(recipe, recipe.camera.fov_deg)
    return args, recipe


def prepare(args: Args, recipe: Recipe) -> Job:
    """Check all that can be wrong, read the picture, load the prior; writes nothing.

    Raises ValueError or FileNotFoundError with one line for the user.
    """
    validate.local_files("image", *args.image)
    validate.local_files("mask", *args.mask)
    validate.local_files("depth", args.depth)
    validate.local_files("normal", args.normal)
    given_deg = [elevation_of(text) for text in args.elevation_deg] or [None]
    check(args.image, azimuths_of(args), given_deg, args.mask)
    seeds = run_args.check_args(args.run)
    picture = read(args, recipe, given_deg)
    prior = run_args.load(args.run)
    task = picture_task(prior, picture, recipe, only_shapes=True)
    make_plan(task, seeds, run_args.devices(args.run))  # refuses what does not fit, and first
    run_args.warn([*validate.device_warnings(), *doubts(args.image, picture)])
    told: dict[str, Any] = {"image": args.image[0].name, "picture": fingerprint(picture)}
    if picture.elevation_deg is None:
        told["elevation"] = "auto"
        before_deg = estimated_before(args.run, recipe, told["picture"])
        picture = picture._replace(elevation_deg=before_deg)
    task = picture_task(prior, picture, recipe)
    assert task.reference is not None
    told["elevation_deg"] = task.reference.elevation_deg
    if picture.others:
        told["azimuths_deg"] = [own.azimuth_deg for own in (picture, *picture.others)]
        told["elevations_deg"] = given_deg
    return make_job(args.run, seeds, task, told, given(args))


def azimuths_of(args: Args) -> tuple[float, ...]:
    """That of each picture; of one alone it does not matter."""
    return args.image_azimuth or (0.0,) * (len(args.image) == 1)


def given(args: Args) -> dict[str, Any]:
    """Which files, and how they are framed; see `make_job`."""
    files = {name: getattr(args, name) for name in ("depth", "normal")}
    found: dict[str, Any] = {
        name: file.absolute() for name, file in files.items() if file is not None
    }
    for name in ("image", "mask"):
        each = [file.absolute() for file in getattr(args, name)]
        found |= {name: each[0] if len(each) == 1 else each} if each else {}
    if len(args.image) > 1:
        found["image_azimuth"] = list(args.image_azimuth)
    return found if args.recentre else {**found, "recentre": False}


def estimated_before(run: RunArgs, recipe: Recipe, picture: str) -> float | None:
    """The elevation that an earlier run in --out found for a picture, so that this one agrees.

    Args:
        picture: its fingerprint.
    """
    camera = recipe_config(recipe)["camera"]
    wanted = {"elevation": "auto", "picture": picture, "prior": run.prior, "pose": run.pose}
    wanted |= {"version": __version__}
    for file in [run.out / "config.json", *sorted(run.out.glob("*/config.json"))]:
        try:
            config = read_json(file, recipe=dict)
            same = all(config.get(name) == value for name, value in wanted.items())
            if same and config["recipe"]["camera"] == camera:
                angle_deg = float(config["elevation_deg"])
                say_elevation(angle_deg, "as an earlier run estimated it")
                return angle_deg
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not of a run of this program
    return None


def read(args: Args, recipe: Recipe, elevations_deg: Sequence[float | None]) -> InputPicture:
    """The pictures, cut out and centred. Raises as `input_pictures.read_pictures`."""
    return read_pictures(
        args.image,
        azimuths_of(args),
        elevations_deg,
        masks=args.mask,
        depth=args.depth,
        normal=args.normal,
        background=PLAIN.get(recipe.render.background, 1.0),
        recentre=args.recentre,
    )


def elevation_of(text: str) -> float | None:
    """What --elevation-deg says, None for "auto".

    Raises:
        ValueError: it is neither that nor an angle at which a camera can stand upright.
    """
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -90 < value < 90:
        raise ValueError(f"--elevation-deg must be auto or lie inside -90..90, not {text}")
    return value


def doubts(images: Sequence[Path], picture: InputPicture) -> list[str]:
    """What a user should know of the pictures, a line each."""
    lines = []
    for image, own in zip(images, (picture, *picture.others), strict=True):
        said = "; ".join(own.doubts)
        if not all(doubt.startswith(("--depth ", "--normal ")) for doubt in own.doubts):
            said += "; --mask says where the object is"
        if said:
            lines.append(f"what was made of {image} is doubtful: {said}")
    return lines


def fingerprint(picture: InputPicture) -> str:
    """A name for what a run sees of pictures, so that another of the same file name differs."""
    parts = [part for own in (picture, *picture.others) for part in own[:4] if part is not None]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]
