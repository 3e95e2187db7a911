"""Evaluation of single_view.py: held-out objects, made from one picture, beside what they are.

    python experiments/evaluate_novel_views.py --objects objects.npz --seeds 0:8 --count 20

Takes objects that the prior never saw in its training (a twentieth, by a hash of their captions),
draws each from 30 degrees beside its front and 20 above the horizon, and makes it from that picture
alone by each method and with each seed. The same camera then goes round the object in steps of 45
degrees, and what was made is compared with the truth: at the picture's own view (PSNR on white,
intersection over union of masks), and at the seven others the mean seed and the best one (PSNR,
silhouette IoU, and the cosine distance of EfficientNet-Lite0's features). The diversity between
seeds is measured on the side that the picture shows (views at -45, 0, 45 degrees from it) and on
the hidden one (135, 180, 225).

The settings of single_view.py are flags here too; --set sds:guidance_scale=10 changes one for one
method. All objects and seeds of a method run together where memory allows. Every object is one
file, OUT/<method>/<object>.npz, and what is there is not made again: the command can be repeated
after an interruption, `--methods` splits the work over processes, and `--no-score` leaves the
judging to later. Writes OUT/table.md, table.csv, scores.json, and of each object OUT/<object>.png:
a row a view, the truth (first of all the picture itself), then every method's seeds.
"""

import dataclasses
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import UInt8

from dsd_jax.cli import overrides, validate
from dsd_jax.data import pictures
from dsd_jax.data.objects import DISTANCE, Objects, load_objects
from dsd_jax.distillation import METHODS
from dsd_jax.engine import single_view
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.export.tables import markdown, save_csv
from dsd_jax.files import atomic_path, slug, write_json
from dsd_jax.metrics import efficientnet, judge, novel_views
from dsd_jax.metrics.features import Features, efficientnet_lite0
from dsd_jax.priors import choose_precision, load_prior
from dsd_jax.recipe.checks import check
from dsd_jax.recipe.input_picture import InputPicture
from dsd_jax.recipe.presets import Settings
from dsd_jax.rendering.scene import GREY, PLAIN, WHITE
from dsd_jax.studies import batch
from dsd_jax.training.novel_view_sheet import choose
from dsd_jax.training.views import composite

AZIMUTH_DEG = 30.0  # of the picture, from the object's front
CAMERA = single_view.TOYBOX_FOV_DEG, DISTANCE
REFERENCE = "sds"
COLUMNS = {"reference_psnr": ".1f", "reference_iou": ".3f", "psnr_mean": ".1f", "psnr_best": ".1f",
           "iou_mean": ".3f", "iou_best": ".3f", "perceptual_mean": ".3f", "perceptual_best": ".3f",
           "visible": ".3f", "hidden": ".3f", "hidden_over_visible": ".1f",
           "visible_of_sds": ".1f", "hidden_of_sds": ".1f", "seconds": ".0f"}  # fmt: skip
NOTE = """
Means over {count} held-out objects of {seeds} seeds each. Reference: at the picture's own view,
PSNR in dB on white and intersection over union of masks. The others: at the seven other views, the
mean seed and the best of the {seeds}; perceptual, the cosine distance of EfficientNet-Lite0's
features to the truth's. Visible, hidden: mean cosine distance between seeds on the side that the
picture shows and behind, and over those of SDS. Seconds: all seeds of an object, compiling
included, on {devices}.
"""


@dataclass(frozen=True)
class Args:
    """Make held-out objects from one picture each, and compare them with the truth."""

    objects: Path | None = None
    """objects.npz, as experiments/pack_objects.py writes it."""
    count: int = 20
    """How many objects, at most, of those that are held out and have colours of their own."""
    seeds: str = "0:8"
    """As in single_view.py; at least two."""
    methods: str = "dsd,sds"
    """What to compare, as dsd,sds,ism."""
    out: Path = Path("runs/novel_views")
    """Folder of the results."""
    prior: str = "toybox-1to3"
    """As in single_view.py."""
    preset: str = "standard"
    """What the settings start from: quick or standard."""
    precision: Literal["float32", "bfloat16"] | None = None
    """As in single_view.py."""
    changes: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = ()
    """Settings of one method alone, METHOD:SETTING=VALUE,SETTING=VALUE."""
    score: bool = True
    """Judge what has been made."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = dataclasses.field(default_factory=Settings)


class Job(NamedTuple):
    """What is to be done.

    Attributes:
        methods: {name: its settings}.
        data: all objects of the file.
        chosen: {name of its files: index} of those that are made.
    """

    args: Args
    methods: dict[str, Settings]
    seeds: list[int]
    data: Objects
    chosen: dict[str, int]
    prior: Any


def main(argv: list[str] | None = None) -> int:
    """Make what is missing, then judge all that is there."""
    try:
        job = prepare(sys.argv[1:] if argv is None else argv)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    truth = truth_of(job)
    for method in job.methods:
        missing = [name for name in job.chosen if not result(job, method, name).exists()]
        if missing:
            make(job, method, {name: truth[name][0] for name in missing})
    if job.args.score:
        report(job, truth)
    return 0


def prepare(argv: list[str]) -> Job:
    """Check all that can be wrong, read the objects, load the prior."""
    preset = validate.flag_value(argv, "preset") or "standard"
    validate.choice("preset", preset, single_view.PRESETS)
    usual = Args(settings=single_view.PRESETS[preset])
    args = tyro.cli(Args, args=argv, default=usual, description=__doc__)
    if args.objects is None:
        raise ValueError("--objects is missing: a file that experiments/pack_objects.py wrote")
    seeds, methods = parse_seeds(args.seeds), read_methods(args)
    if len(seeds) < 2:
        raise ValueError("--seeds must name at least two: diversity is between seeds")
    if args.count < 1:
        raise ValueError(f"--count must be at least 1, not {args.count}")
    validate.writable(args.out)
    if args.score:
        efficientnet.weights_path()
    data = load_objects(args.objects)
    chosen = {f"{i:05d}-{slug(data.caption[i])}": int(i) for i in choose(data, args.count)}
    if not chosen:
        raise ValueError(
            f"--objects {args.objects}: none of the {len(data)} is held out and has colours of its "
            "own; a twentieth of all captions is, so give a file of more objects"
        )
    precision = choose_precision(args.precision)
    prior = load_prior(args.prior, jnp.dtype(precision))
    single_view.check_prior(prior)
    for line in validate.warnings("", prior.folder):
        print(f"warning: {line}", file=sys.stderr)
    with args.objects.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    config = {name: getattr(args, name) for name in ("count", "seeds", "prior")}
    config |= {"objects": digest, "precision": precision}
    validate.remember(args.out, config | {"settings": dataclasses.asdict(args.settings)})
    for name, settings in methods.items():
        validate.remember(args.out / name, dataclasses.asdict(settings) | {"method": name})
    return Job(args, methods, seeds, data, chosen, prior)


def read_methods(args: Args) -> dict[str, Settings]:
    """{method: its settings}. Refuses what is no method, or settings that cannot work."""
    names = list(dict.fromkeys(name.strip() for name in args.methods.split(",")))
    for name in names:
        validate.choice("methods", name, METHODS)
    changes = [overrides.parse(text) for text in args.changes]
    for name, _ in changes:
        validate.choice("set", name, names)
    methods = {}
    for name in names:
        own = {key: value for of, values in changes if of == name for key, value in values.items()}
        settings = methods[name] = dataclasses.replace(args.settings, **own)
        check(settings)
        single_view.check(METHODS[name], name, settings)
        if (settings.fov_deg, settings.distance) != CAMERA:
            raise ValueError(
                "--fov-deg and --distance must be those of the pictures, "
                f"{' and '.join(map(str, CAMERA))}; leave them out"
            )
    return methods


def result(job: Job, method: str, name: str) -> Path:
    """The file of a method and object."""
    return job.args.out / method / f"{name}.npz"


def truth_of(job: Job) -> dict[str, UInt8[np.ndarray, "8 h w 4"]]:
    """{object: its views, premultiplied}, drawn once for all methods and kept in OUT/truth.npz."""
    file = job.args.out / "truth.npz"
    if not file.exists():
        plan, indices = plan_around(len(job.chosen)), list(job.chosen.values())
        views = pictures.render_views(job.data, indices, plan, resolution=judge.SIZE, batch=1)
        with atomic_path(file) as temporary:
            np.savez_compressed(temporary, **dict(zip(job.chosen, views, strict=True)))
    with np.load(file) as found:
        return dict(found)


def plan_around(n: int) -> pictures.ViewPlan:
    """The judge's 8 views of each of n objects, from the picture's on; lights stay where they are.

    They are the views of a finished object whose picture was taken at `AZIMUTH_DEG`.
    """
    azimuth = np.radians(AZIMUTH_DEG + np.tile(judge.AZIMUTHS_DEG, (n, 1)))
    lights = pictures.plan_lights(np.random.default_rng(0), azimuth[:, :1])

    def spread(leaf):
        """[n, 1, ...] -> [n, 8, ...]."""
        return np.repeat(leaf, azimuth.shape[1], axis=1).astype(np.float32)

    elevation = np.full_like(azimuth, np.radians(judge.ELEVATION_DEG), np.float32)
    return pictures.ViewPlan(azimuth.astype(np.float32), elevation, jax.tree.map(spread, lights))


def make(job: Job, method: str, shown: dict[str, UInt8[np.ndarray, "h w 4"]]) -> None:
    """The objects of a method from {object: its picture}, together; keeps them and says so."""
    settings, tasks = job.methods[method], []
    for rgba in shown.values():
        rgb = np.asarray(composite(rgba, PLAIN[settings.background]))
        picture = InputPicture(rgb, rgba[..., 3] / np.float32(255), None, None, [])
        told = single_view.embed_picture(job.prior, picture, judge.ELEVATION_DEG)
        tasks.append(single_view.make_task(job.prior, told, METHODS[method], settings))
    made = batch.make_all(tasks, job.seeds, opacity=True)
    for name, objects in zip(shown, made, strict=True):
        with atomic_path(result(job, method, name)) as temporary:
            arrays = objects._asdict() | {"device": jax.devices()[0].device_kind}
            np.savez_compressed(temporary, **arrays)
        print(f"{method}: {name}: {objects.seconds:.0f} s", flush=True)


def report(job: Job, truth: dict[str, UInt8[np.ndarray, "8 h w 4"]]) -> None:
    """Judge all methods; writes the table and the pictures."""
    network, out, devices = efficientnet_lite0(), job.args.out, set()
    scores: dict[str, dict[str, Any]] = {method: {} for method in job.methods}
    for name, rgba in truth.items():
        known = seen(network, np.asarray(composite(rgba, WHITE)), rgba[..., 3])
        labels, columns = ["truth"], [known.rgb]
        for method, objects in scores.items():
            with np.load(result(job, method, name)) as file:
                found = dict(file)
            made = seen(network, on_white(found["views"]), found["views"][..., 3])
            row = novel_views.of_object(made, known, judge.AZIMUTHS_DEG)
            objects[name] = row | {"seconds": float(found["seconds"])}
            devices.add(str(found["device"]))
            labels += [f"{method} {seed}" for seed in job.seeds]
            columns += list(made.rgb)
        rows = ["picture", *(f"{azimuth:g}" for azimuth in judge.AZIMUTHS_DEG[1:])]
        save_png(out / f"{name}.png", contact_sheet(np.stack(columns), labels, 96, rows))
    table = {method: novel_views.summary(objects.values()) for method, objects in scores.items()}
    if REFERENCE in table:
        for method, ratios in novel_views.compared(table, REFERENCE).items():
            table[method] |= ratios
    each = {method: row | {"objects": scores[method]} for method, row in table.items()}
    write_json(out / "scores.json", each)
    save_csv(out / "table.csv", table, COLUMNS, "method")
    note = NOTE.format(count=len(truth), seeds=len(job.seeds), devices=", ".join(sorted(devices)))
    text = markdown(table, COLUMNS, "method") + note
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(text, "utf-8")
    print(text)


def seen(network: Features, rgb: np.ndarray, opacity: np.ndarray) -> novel_views.Views:
    """Pictures in [0, 1], their opacity in 0..255, and their features."""
    return novel_views.Views(rgb, opacity / np.float32(255), network(rgb))


def on_white(views: UInt8[np.ndarray, "n v h w 4"]) -> np.ndarray:
    """Colours on grey with their opacity: colours on white, [n, v, h, w, 3] in [0, 1]."""
    rgb, opacity = np.split(views / np.float32(255), [3], axis=-1)
    return np.clip(rgb + (1 - opacity) * np.float32(WHITE - GREY), 0, 1)


if __name__ == "__main__":
    validate.set_up_jax()
    sys.exit(main())
