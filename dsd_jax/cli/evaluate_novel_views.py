"""Evaluation of single_view.py: held-out objects, made from one picture, beside what they are.

    python experiments/evaluate_novel_views.py --objects objects.npz --seeds 0:8 --count 20

Takes objects that the prior never saw in its training (a twentieth, by a hash of their captions),
draws each from 30 degrees beside its front and 20 above the horizon, and makes it from that picture
alone by each method and with each seed. The same camera then goes round the object in steps of 45
degrees, and what was made is compared with the truth: at the picture's own view (PSNR on white,
intersection over union of masks), and at the seven others the mean seed and the best one (PSNR,
silhouette IoU, and the cosine distance of EfficientNet-Lite0's features), and so is its mesh
(Chamfer distance of the visible surfaces, see `metrics.chamfer`). The diversity between
seeds is measured on the side that the picture shows (views at -45, 0, 45 degrees from it) and on
the hidden one (135, 180, 225).

The numbers of single_view.py's recipe are flags here too; of --method.* those of DSD, and guidance
scale and weighting of all methods. --set sds:guidance_scale=10 changes one for one method. All
objects and seeds of a method run together where memory allows. Every object is one file,
OUT/<method>/<object>.npz, and what is there is not made again: the command can be repeated after an
interruption, `--methods` splits the work over processes, and `--no-score` leaves the judging to
later. Writes OUT/table.md, table.csv, scores.json, and of each object OUT/<object>.png: a row a
view, the truth (first of all the picture itself), then every method's seeds.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import tyro

from dsd_jax.cli import flags, overrides, run_args, validate
from dsd_jax.cli.program import refuse
from dsd_jax.data import pictures
from dsd_jax.data.objects import Objects, load_objects
from dsd_jax.distillation import METHODS
from dsd_jax.engine.plan import all_at_once
from dsd_jax.engine.results import recipe_config
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.files import atomic_path, slug
from dsd_jax.metrics import efficientnet, judge
from dsd_jax.priors import choose_precision, load_prior
from dsd_jax.recipe.presets import PRESETS, of_picture
from dsd_jax.recipe.recipe import Recipe, changed, with_method
from dsd_jax.rendering.cameras import DISTANCE, FOV_DEG
from dsd_jax.studies import from_pictures
from dsd_jax.studies.from_pictures import FromPictures, Shape, Truth
from dsd_jax.studies.meshes import seen_points
from dsd_jax.training.novel_view_sheet import choose

AZIMUTH_DEG = 30.0  # of the picture, from the object's front
CAMERA = FOV_DEG, DISTANCE


@dataclass(frozen=True)
class Args:
    """Make held-out objects from one picture each, and compare them with the truth."""

    objects: Path | None = None
    """objects.npz, as experiments/tools/pack_objects.py writes it."""
    count: int = 20
    """How many objects, at most, of those that are held out and have colours of their own."""
    seeds: str = "0:8"
    """As in single_view.py; at least two."""
    methods: str = "dsd,sds"
    """What to compare, as dsd,sds,ism."""
    steps: int = 0
    """Optimisation steps."""
    out: Path = Path("runs/novel_views")
    """Folder of the results."""
    prior: str = "toybox-1to3"
    """As in single_view.py."""
    pose: Literal["distance", "elevation"] | None = None
    """As in single_view.py."""
    preset: str = "standard"
    """What the recipe starts from: draft, quick, standard, best or authors."""
    precision: Literal["float32", "bfloat16"] | None = None
    """As in single_view.py."""
    changes: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = ()
    """Numbers of one method alone, METHOD:NUMBER=VALUE,NUMBER=VALUE."""
    behind: bool = False
    """Give the view from behind as a second picture; the table's seven other views hold it."""
    mesh: bool = True
    """Compare the objects' meshes with the truth too (Chamfer distance)."""
    score: bool = True
    """Judge what has been made."""


def main(argv: Sequence[str]) -> int:
    """Make what is missing, then judge all that is there; returns the exit code."""
    try:
        args, recipe = parse(argv)
        study, data, chosen = prepare(args, recipe)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return refuse(error)
    truth = truth_of(study, data, chosen)
    from_pictures.make(study, truth)
    if args.score:
        shapes = {name: shape_of(data, i) for name, i in zip(study.names, chosen, strict=True)}
        print(from_pictures.report(study, truth, shapes))
    return 0


def parse(argv: Sequence[str]) -> tuple[Args, Recipe]:
    """The command line over the defaults of its preset."""
    preset = flags.flag_value(argv, "preset") or "standard"
    validate.choice("preset", preset, PRESETS)
    usual = of_picture(PRESETS[preset], FOV_DEG)
    default = Args(preset=preset, steps=usual.steps)
    args, recipe = flags.parse(Args, argv, __doc__ or "", default, usual)
    return args, changed(recipe, steps=args.steps)


def prepare(args: Args, recipe: Recipe) -> tuple[FromPictures, Objects, list[int]]:
    """Check all that can be wrong, read the objects, load the prior, note the configuration.

    Raises ValueError, FileNotFoundError or ModuleNotFoundError with one line for the user.

    Returns the study, all objects of the file, and the indices of those that are made.
    """
    if args.objects is None:
        raise ValueError(
            "--objects is missing: a file that experiments/tools/pack_objects.py wrote"
        )
    seeds, recipes = parse_seeds(args.seeds), read_methods(args, recipe)
    if len(seeds) < 2:
        raise ValueError("--seeds must name at least two: diversity is between seeds")
    if args.count < 1:
        raise ValueError(f"--count must be at least 1, not {args.count}")
    validate.writable(args.out)
    if args.score:
        efficientnet.weights_path()
    data = load_objects(args.objects)
    chosen = [int(i) for i in choose(data, args.count)]
    if not chosen:
        raise ValueError(
            f"--objects {args.objects}: none of the {len(data)} is held out and has colours of its "
            "own; a twentieth of all captions is, so give a file of more objects"
        )
    precision = choose_precision(args.precision)
    prior = load_prior(args.prior, jnp.dtype(precision), pose=args.pose)
    blank = np.zeros((len(judge.AZIMUTHS_DEG), judge.SIZE, judge.SIZE, 4), np.uint8)
    for own in recipes.values():  # raises for what does not go with a picture
        task = from_pictures.task_of(prior, blank, own, "blank", args.behind, only_shapes=True)
        all_at_once(task, seeds)
    run_args.warn(validate.device_warnings())
    with args.objects.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    config = {name: getattr(args, name) for name in ("count", "seeds", "prior")}
    config |= {"objects": digest, "precision": precision}
    config |= {"pose": args.pose} if args.pose else {}
    config |= {"behind": True} if args.behind else {}
    validate.remember(args.out, config | {"recipe": recipe_config(recipe)})
    for name, own in recipes.items():
        validate.remember(args.out / name, {"method": name, "recipe": recipe_config(own)})
    names = [f"{i:05d}-{slug(data.caption[i])}" for i in chosen]
    return (
        FromPictures(args.out, recipes, names, seeds, prior, args.mesh, args.behind),
        data,
        chosen,
    )


def read_methods(args: Args, recipe: Recipe) -> dict[str, Recipe]:
    """{method: its recipe}. Refuses what is no method, or numbers that cannot work."""
    names = validate.listed("methods", args.methods)
    for name in names:
        validate.choice("methods", name, METHODS)
    changes = [overrides.parse(text) for text in args.changes]
    for name, _ in changes:
        validate.choice("set", name, names)
    recipes = {}
    for name in names:
        given = {k: v for target, values in changes if target == name for k, v in values.items()}
        own = with_method(recipe, name)
        own = recipes[name] = changed(own, **overrides.values(own, given))
        if (own.camera.fov_deg, own.camera.distance) != CAMERA:
            raise ValueError(
                "--camera.fov-deg and --camera.distance must be those of the pictures, "
                f"{' and '.join(map(str, CAMERA))}; leave them out"
            )
    return recipes


def truth_of(study: FromPictures, data: Objects, chosen: list[int]) -> dict[str, Truth]:
    """{object: its views}, drawn once for all methods and kept in OUT/truth.npz."""
    file = study.out / "truth.npz"
    if not file.exists():
        plan = plan_around(len(chosen))
        views = pictures.render_views(data, chosen, plan, resolution=judge.SIZE, batch=1)
        with atomic_path(file) as temporary:
            np.savez_compressed(temporary, **dict(zip(study.names, views, strict=True)))
    with np.load(file) as found:
        return dict(found)


def shape_of(data: Objects, i: int) -> Shape:
    """Points of object i's visible surface, turned so that its picture's camera is at azimuth 0."""
    corners, angle = data.triangles(i).reshape(-1, 3), np.radians(AZIMUTH_DEG)
    x, y, z = corners.T
    turned = np.stack(
        [x * np.cos(angle) - z * np.sin(angle), y, x * np.sin(angle) + z * np.cos(angle)], -1
    )
    return seen_points(turned, np.arange(len(corners)).reshape(-1, 3))


def plan_around(n: int) -> pictures.ViewPlan:
    """The judge's 8 views of each of n objects, from the picture's on.

    They are the views of a finished object whose picture was taken at `AZIMUTH_DEG`.
    """
    azimuths_deg = [AZIMUTH_DEG + azimuth for azimuth in judge.AZIMUTHS_DEG]
    return pictures.plan_around(azimuths_deg, judge.ELEVATION_DEG, n)
