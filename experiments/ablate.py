"""Ablation of the text-to-3D recipe: one change at a time, the same prompts and seeds.

    python experiments/ablate.py --out runs/ablation

Optimises every variant of `dsd_jax/studies/variants.py` for every prompt and seed, keeps the 8
views of each object in OUT/<variant>/<prompt>.npz, and writes OUT/table.md, OUT/scores.json and one
contact sheet a variant. What is there already is not run again, so the command can be repeated
after an interruption, and `--only` splits the work over several processes or machines. `--no-score`
leaves the judging to a later call. The settings of text3d.py are flags here too; they change the
base.

Prompts and seeds run as one batch where memory allows. Variants that come to the same settings
share their results. A variant takes 1 to 3 minutes on one H200, most of it compiling: run several
processes with `--only`. Expect of the default: diversity 0.31, accepted 83 %, floaters 0.7 %.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

from dsd_jax.cli import validate
from dsd_jax.distillation import METHODS
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.export.tables import markdown
from dsd_jax.files import atomic_path, slug, write_json
from dsd_jax.metrics import bank as banks
from dsd_jax.metrics import judge, scores
from dsd_jax.metrics.averages import means
from dsd_jax.metrics.efficientnet import features_in_batches, load_efficientnet
from dsd_jax.priors import choose_precision, load_prior
from dsd_jax.recipe.checks import check
from dsd_jax.recipe.presets import PRESETS, Settings
from dsd_jax.studies.batch import make_objects
from dsd_jax.studies.variants import VARIANTS

COLUMNS = {"diversity": ".2f", "accepted": ".0%", "direction": ".2f", "one_front": ".2f",
           "floaters": ".1%", "seconds": ".0f"}  # fmt: skip


@dataclass(frozen=True)
class Args:
    """Run variants of the recipe and compare them."""

    out: Path = Path("runs/ablation")
    """Folder of the results."""
    prompts: tuple[str, ...] = ("a house", "a chair", "a tree", "a fish", "a car")
    """Prompts that every variant is run with."""
    seeds: str = "0:8"
    """Seeds that every variant is run with, as in text3d.py."""
    only: tuple[str, ...] = ()
    """Run these variants alone."""
    preset: str = "standard"
    """What the variants change: quick or standard."""
    prior: str = "toybox"
    """Prior, as in text3d.py."""
    score: bool = True
    """Judge what has been run."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = dataclasses.field(default_factory=Settings)


def main(argv: list[str] | None = None) -> int:
    """Run what is missing, then judge all that is there."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        preset = validate.flag_value(argv, "preset") or "standard"
        validate.choice("preset", preset, PRESETS)
        args = tyro.cli(
            Args, args=argv, default=Args(settings=PRESETS[preset]), description=__doc__
        )
        seeds, chosen = parse_seeds(args.seeds), args.only or tuple(VARIANTS)
        for name in chosen:
            validate.choice("only", name, VARIANTS)
            method, settings = variant(name, args.settings)
            validate.choice("method", method, METHODS)
            check(settings)
        validate.writable(args.out)
        prior = load_prior(args.prior, jnp.dtype(choose_precision()))
        base = {f: getattr(args, f) for f in ("seeds", "preset", "prior")}
        validate.remember(args.out, base | {"settings": dataclasses.asdict(args.settings)})
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for name in chosen:
        run(name, args, seeds, prior)
    if args.score:
        report(args)
    return 0


def variant(name: str, settings: Settings) -> tuple[str, Settings]:
    """Method and settings of a variant."""
    changes = dict(VARIANTS[name])
    return changes.pop("method", "dsd"), dataclasses.replace(settings, **changes)


def result(args: Args, name: str, prompt: str) -> Path:
    """The file of one variant and prompt; variants that are alike share it."""
    wanted = variant(name, args.settings)
    first = next(other for other in VARIANTS if variant(other, args.settings) == wanted)
    return args.out / slug(first) / f"{slug(prompt)}.npz"


def run(name: str, args: Args, seeds: list[int], prior) -> None:
    """Optimise one variant for the prompts that lack it, see `batch.make_objects`."""
    method, settings = variant(name, args.settings)
    missing = [prompt for prompt in args.prompts if not result(args, name, prompt).exists()]
    if not missing:
        return
    made = make_objects(prior, missing, METHODS[method], settings, seeds)
    for prompt, objects in zip(missing, made, strict=True):
        with atomic_path(result(args, name, prompt)) as temporary:
            np.savez_compressed(temporary, **objects._asdict())
        print(f"{name}: {prompt}: {objects.seconds:.0f} s", flush=True)


def report(args: Args) -> None:
    """Judge every variant that is complete; writes scores.json, table.md and contact sheets."""
    network, bank = load_efficientnet(), banks.load_bank()
    rows = {}
    for name in VARIANTS:
        paths = [result(args, name, prompt) for prompt in args.prompts]
        if all(path.exists() for path in paths):
            found = [dict(np.load(path)) for path in paths]
            rows[name] = judged(args.prompts, found, network, bank)
            sheets = [contact_sheet(f["views"][:, [1, 4, 6]], tile=96) for f in found]
            save_png(paths[0].with_name("seeds.png"), np.concatenate(sheets))
    write_json(args.out / "scores.json", rows)
    table = markdown(rows, COLUMNS, "variant")
    (args.out / "table.md").write_text(table)
    print(table)


def judged(prompts, found, network, bank) -> dict[str, Any]:
    """Mean scores over prompts, and each prompt's own under "prompts"."""
    each = {}
    for prompt, arrays in zip(prompts, found, strict=True):
        features = features_in_batches(network, arrays["views"])
        row = scores.of_objects(bank, prompt, features)
        row |= {"floaters": float(np.median(arrays["floaters"])),
                "seconds": float(arrays["seconds"])}  # fmt: skip
        category = row.pop("category")
        if category in judge.DIRECTED:
            known = (bank, category, features, judge.AZIMUTHS_DEG)
            row["direction"] = judge.direction_score(*known)
            row["one_front"] = judge.one_front_score(*known)
        each[prompt] = row
    return means(each.values()) | {"prompts": each}


if __name__ == "__main__":
    validate.set_up_jax()
    sys.exit(main())
