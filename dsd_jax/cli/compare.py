"""Comparison of the methods: the same prompts, seeds and numbers, in 2D or 3D.

    python experiments/compare.py --task 2d --seeds 0:16
    python experiments/compare.py --task 3d --seeds 0:8 --prompts "a house" "a chair" "a tree"

A method is one of `dsd_jax/distillation/`, or `ddim`: the prior's own samples, always made, which
all others are compared with. METHOD@STEPS gives it other steps: dsd-star@25, ddim@100. The numbers
of text3d.py's recipe are flags too; of --method.* those of DSD, and guidance scale and weighting of
all methods. --set sds:guidance_scale=10 changes a number for one method, be it of its own:
--set vsd:lora_rate=0.01.

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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
import tyro

from dsd_jax.cli import flags, overrides, run_args, validate
from dsd_jax.cli.program import FAILED, refuse
from dsd_jax.cli.prompts import read
from dsd_jax.distillation import METHODS
from dsd_jax.engine.lost import LOST
from dsd_jax.engine.plan import all_at_once
from dsd_jax.engine.results import recipe_config
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.engine.task import make_task, warnings_of
from dsd_jax.files import slug
from dsd_jax.metrics import clip, efficientnet
from dsd_jax.priors import choose_precision, load_prior
from dsd_jax.recipe.presets import PRESETS
from dsd_jax.recipe.recipe import Recipe, changed
from dsd_jax.schedule import MAX_TIMESTEPS
from dsd_jax.studies import compare, images2d
from dsd_jax.studies.compare import DDIM, Comparison, Entry
from dsd_jax.studies.free import ImageTask
from dsd_jax.studies.images2d import NAMES, ON_LATENTS, PICTURES, PLAIN, STAR, recipe_by

TASKS = ("2d", "3d")
# Of --method dsd-plain, whatever --steps says.
PLAIN_STEPS = 50


@dataclass(frozen=True)
class Args:
    """Run the methods and compare them."""

    task: str = "2d"
    """2d: free pictures; 3d: objects."""
    methods: str = ""
    """What to compare, as sds,dsd,dsd-star@25 (empty: all methods)."""
    prompts: tuple[str, ...] = compare.PROMPTS
    """Prompts, or files with one a line; what follows a # is a comment."""
    seeds: str = "0:16"
    """As in text3d.py; at least two."""
    steps: int = 0
    """Optimisation steps."""
    out: Path | None = None
    """Folder of the results (None: runs/compare_2d or runs/compare_3d)."""
    changes: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = ()
    """Numbers of one method alone, METHOD:NUMBER=VALUE,NUMBER=VALUE."""
    preset: str = "standard"
    """What 3D starts from: draft, quick, standard, best or authors."""
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
    mesh: bool = True
    """In 3D: look at the objects' meshes too: geometry, clay, and likeness to the field."""
    score: bool = True
    """Judge what has been made."""


def main(argv: Sequence[str]) -> int:
    """Make what is missing, then judge all that is there; returns the exit code.

    It is `LOST` where a seed came to nothing.
    """
    try:
        args, recipe = parse(argv)
        study, encoders = prepare(args, recipe)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return refuse(error)
    try:
        compare.make(study)
        if args.score:
            print(compare.report(study, encoders))
        return LOST if compare.any_lost(study) else 0
    except OSError as error:
        return refuse(error, FAILED)


def parse(argv: Sequence[str]) -> tuple[Args, Recipe]:
    """The command line over the defaults of its task and preset."""
    task = flags.flag_value(argv, "task") or "2d"
    validate.choice("task", task, TASKS)
    preset = flags.flag_value(argv, "preset") or "standard"
    validate.choice("preset", preset, PRESETS)
    usual = PICTURES if task == "2d" else PRESETS[preset]
    default = Args(task=task, preset=preset, steps=usual.steps)
    args, recipe = flags.parse(Args, argv, __doc__ or "", default, usual)
    return args, changed(recipe, steps=args.steps)


def prepare(args: Args, recipe: Recipe) -> tuple[Comparison, clip.Clip | None]:
    """Check all that can be wrong, load the prior, and note the configuration.

    Raises ValueError, FileNotFoundError or ModuleNotFoundError with one line for the user.
    """
    prompts, seeds = read(args.prompts), parse_seeds(args.seeds)
    entries = read_entries(args, recipe)
    if len(seeds) < 2:
        raise ValueError("--seeds must name at least two: diversity is between seeds")
    validate.choice("space", args.space, images2d.SPACES)
    validate.view(args.azimuth_deg, args.elevation_deg)
    out = args.out or Path(f"runs/compare_{args.task}")
    validate.writable(out)
    if args.score:
        efficientnet.weights_path()
    encoders = clip.load_clip(args.clip) if args.clip else None
    precision = choose_precision(args.precision)
    prior = load_prior(args.prior, jnp.dtype(precision))
    task = make_task(prior, prompts[0], recipe, only_shapes=True)  # raises for what is no prompt
    for entry in entries:
        own = task._replace(recipe=entry.recipe)
        if args.task == "2d":
            images2d.refuse_too_many(ImageTask(own, space=args.space), seeds)
        elif entry.kind != DDIM:
            all_at_once(own, seeds)
    run_args.warn(warnings_of(prior, prompts, [entry.recipe for entry in entries]))
    kept = ("task", "seeds", "prior", "ddim_steps")
    kept += ("space", "azimuth_deg", "elevation_deg") if args.task == "2d" else ()
    config = {name: getattr(args, name) for name in kept} | {"precision": precision}
    validate.remember(out, config | {"recipe": recipe_config(recipe)})
    for entry in entries:
        own = {"method": entry.kind, "recipe": recipe_config(entry.recipe)}
        validate.remember(out / slug(entry.name), own)
    place = args.space, np.deg2rad(args.azimuth_deg), np.deg2rad(args.elevation_deg)
    study = Comparison(out, entries, prompts, seeds, prior, args.task == "3d", *place, args.mesh)
    return study, encoders


def read_entries(args: Args, recipe: Recipe) -> list[Entry]:
    """The rows, DDIM's first. Refuses what is no method, or numbers that cannot work."""
    two = args.task == "2d"
    valid = [*(NAMES if two else METHODS), DDIM]
    names = validate.listed("methods", args.methods) if args.methods else valid
    validate.ddim_steps(args.ddim_steps)
    kinds = {name: name.partition("@")[0] for name in dict.fromkeys([DDIM, *names])}
    changes = [overrides.parse(text) for text in args.changes]
    for name, _ in changes:
        validate.choice("set", name, {*kinds, *kinds.values()})
    if two and recipe.camera.views != 1:
        raise ValueError(f"--views must be 1 with --task 2d, not {recipe.camera.views}")
    entries = []
    for name, kind in kinds.items():
        validate.choice("methods", kind, valid)
        steps = {DDIM: args.ddim_steps, PLAIN: PLAIN_STEPS}.get(kind, recipe.steps)
        given: dict[str, str] = {"steps": str(steps)}
        for target, values in changes:
            given |= values if target in (name, kind) else {}
        _, at, steps = name.partition("@")
        if at and not steps.isdigit():
            raise ValueError(f"--methods {name}: what follows @ must be a number of steps")
        given |= {"steps": steps} if at else {}
        own = _recipe_of(recipe, kind, given)
        if kind in (DDIM, STAR) and not 2 <= own.steps <= MAX_TIMESTEPS:
            raise ValueError(f"{name} needs from 2 to {MAX_TIMESTEPS} steps, points of an ODE")
        if kind in ON_LATENTS and args.space != "latents":
            raise ValueError(f"{kind} moves latents alone, not --space {args.space}; leave it out")
        entries.append(Entry(name, kind, own))
    return entries


def _recipe_of(recipe: Recipe, kind: str, given: dict[str, str]) -> Recipe:
    """The recipe of a row, with these numbers as they are typed."""
    name = "dsd" if kind == DDIM else kind
    values: dict[str, Any] = overrides.values(recipe_by(recipe, name), given)
    return recipe_by(recipe, name, **values)
