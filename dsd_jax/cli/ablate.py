"""Ablation of the text-to-3D recipe: one change at a time, the same prompts and seeds.

    python experiments/ablate.py --out runs/ablation

Optimises every variant of `dsd_jax/studies/variants.py` for every prompt and seed, keeps the 8
views of each object in OUT/<variant>/<prompt>.npz, and writes OUT/table.md, OUT/scores.json and one
contact sheet a variant. What is there already is not run again, so the command can be repeated
after an interruption, and `--only` splits the work over several processes or machines. `--no-score`
leaves the judging to a later call. The flags of text3d.py that are numbers of the recipe are flags
here too; they change the base.

Prompts and seeds run as one batch where memory allows. Variants that come to the same recipe share
their results. A variant takes 1 to 3 minutes on one H200, most of it compiling: run several
processes with `--only`. Expect of the default: diversity 0.30, accepted 90 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp

from dsd_jax.cli import flags, run_args, validate
from dsd_jax.cli.program import FAILED, refuse
from dsd_jax.cli.prompts import read
from dsd_jax.engine.lost import LOST
from dsd_jax.engine.plan import all_at_once
from dsd_jax.engine.results import recipe_config
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.engine.task import make_task, warnings_of
from dsd_jax.priors import choose_precision, load_prior
from dsd_jax.recipe.presets import PRESETS
from dsd_jax.recipe.recipe import Recipe, changed
from dsd_jax.studies import ablate
from dsd_jax.studies.variants import VARIANTS, recipe_of


@dataclass(frozen=True)
class Args:
    """Run variants of the recipe and compare them."""

    out: Path = Path("runs/ablation")
    """Folder of the results."""
    prompts: tuple[str, ...] = ("a house", "a chair", "a tree", "a fish", "a car")
    """Prompts that every variant is run with, or files of them, as in compare.py."""
    seeds: str = "0:8"
    """Seeds that every variant is run with, as in text3d.py."""
    only: tuple[str, ...] = ()
    """Run these variants alone."""
    preset: str = "standard"
    """What the variants change: draft, quick, standard, best or authors."""
    steps: int = 0
    """Optimisation steps."""
    prior: str = "toybox"
    """Prior, as in text3d.py."""
    mesh: bool = True
    """Look at the objects' meshes too: geometry, clay, and likeness to the field."""
    score: bool = True
    """Judge what has been run."""


def main(argv: Sequence[str]) -> int:
    """Run what is missing, then judge all that is there; returns the exit code.

    It is `LOST` where a seed came to nothing.
    """
    try:
        args, recipe = parse(argv)
        study, chosen = prepare(args, recipe)
    except (ValueError, OSError) as error:
        return refuse(error)
    try:
        ablate.make(study, chosen)
        if args.score:
            print(ablate.report(study))
        return LOST if ablate.any_lost(study, chosen) else 0
    except OSError as error:
        return refuse(error, FAILED)


def parse(argv: Sequence[str]) -> tuple[Args, Recipe]:
    """The command line over the defaults of its preset."""
    preset = flags.flag_value(argv, "preset") or "standard"
    validate.choice("preset", preset, PRESETS)
    usual = PRESETS[preset]
    default = Args(preset=preset, steps=usual.steps)
    args, recipe = flags.parse(Args, argv, __doc__ or "", default, usual)
    return args, changed(recipe, steps=args.steps)


def prepare(args: Args, recipe: Recipe) -> tuple[ablate.Ablation, tuple[str, ...]]:
    """Check all that can be wrong, load the prior, and note the configuration: study and variants.

    Raises ValueError or FileNotFoundError with one line for the user.
    """
    prompts, seeds = tuple(read(args.prompts)), parse_seeds(args.seeds)
    chosen = args.only or tuple(VARIANTS)
    validate.once("only", chosen)
    for name in chosen:
        validate.choice("only", name, VARIANTS)
    variants = [recipe_of(name, recipe) for name in chosen]
    validate.writable(args.out)
    prior = load_prior(args.prior, jnp.dtype(choose_precision()))
    run_args.warn(warnings_of(prior, prompts, variants))
    first = make_task(prior, prompts[0], recipe, only_shapes=True)  # raises for what is no prompt
    all_at_once(first, seeds)
    base = {name: getattr(args, name) for name in ("seeds", "preset", "prior")}
    validate.remember(args.out, base | {"recipe": recipe_config(recipe)})
    return ablate.Ablation(args.out, recipe, prompts, seeds, prior, args.mesh), chosen
