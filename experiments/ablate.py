"""Ablation of the text-to-3D recipe: one change at a time, the same prompts and seeds.

    python experiments/ablate.py --out runs/ablation

Optimises every variant of `dsd_jax/optimization/variants.py` for every prompt and seed, keeps the 8
views of each object in OUT/<variant>/<prompt>.npz, and writes OUT/table.md, OUT/scores.json and one
contact sheet a variant. What is there already is not run again, so the command can be repeated
after an interruption, and `--only` splits the work over several processes or machines. `--no-score`
leaves the judging to a later call. The settings of text3d.py are flags here too; they change the
base.

A variant of the preset `standard` takes 14 s a prompt (8 seeds) on one H200, and 1 to 2 minutes to
compile. Expect of the default: diversity 0.32, accepted 83 %, floaters 0.7 %.
"""

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from dsd_jax.distillation import METHODS
from dsd_jax.export.files import atomic_path
from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.export.run_folder import plain, slug, write_json
from dsd_jax.metrics import bank as banks
from dsd_jax.metrics import floaters, judge
from dsd_jax.metrics.diversity import diversity
from dsd_jax.metrics.efficientnet import features_in_batches, load_efficientnet
from dsd_jax.optimization import loop, validate
from dsd_jax.optimization.presets import PRESETS, Settings, check
from dsd_jax.optimization.preview import levels_in_use, make_camerawork, shoot
from dsd_jax.optimization.seeds import parse_seeds
from dsd_jax.optimization.step import Shared
from dsd_jax.optimization.text_to_3d import Task, initial_states, make_blocks, make_task
from dsd_jax.optimization.variants import VARIANTS
from dsd_jax.priors import load_prior
from dsd_jax.training.evaluate import DIRECTED


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
        on_cpu = jax.default_backend() == "cpu"
        prior = load_prior(args.prior, jnp.float32 if on_cpu else jnp.bfloat16)
        remember(args)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for name in chosen:
        run(name, args, seeds, prior)
    if args.score:
        report(args)
    return 0


def remember(args: Args) -> None:
    """Write OUT/config.json, or refuse a folder that holds results of another base."""
    path = args.out / "config.json"
    base = plain({f: getattr(args, f) for f in ("seeds", "preset", "prior")}
                 | {"settings": dataclasses.asdict(args.settings)})  # fmt: skip
    if path.is_file() and json.loads(path.read_text("utf-8")) != base:
        raise ValueError(
            f"{args.out} holds results of other seeds or settings; choose another --out"
        )
    write_json(path, base)


def variant(name: str, settings: Settings) -> tuple[str, Settings]:
    """Method and settings of a variant."""
    changes = dict(VARIANTS[name])
    return changes.pop("method", "dsd"), dataclasses.replace(settings, **changes)


def result(args: Args, name: str, prompt: str) -> Path:
    """The file of one variant and prompt."""
    return args.out / slug(name) / f"{slug(prompt)}.npz"


def run(name: str, args: Args, seeds: list[int], prior) -> None:
    """Optimise one variant for the prompts that lack it; keep views, floaters and seconds."""
    method, settings = variant(name, args.settings)
    mesh, blocks = loop.seed_mesh(len(seeds)), None
    for prompt in args.prompts:
        path = result(args, name, prompt)
        if path.exists():
            continue
        began = time.monotonic()
        task = make_task(prior, prompt, METHODS[method], settings)
        blocks = blocks or make_blocks(task, mesh)
        states, shared = loop.place(
            mesh, initial_states(task, seeds), Shared(prior.params, task.text)
        )
        states = loop.run(blocks, states, shared, lambda progress: None)
        seconds = time.monotonic() - began
        camerawork = make_camerawork(task.scene, judge.SIZE, settings.final_samples, mesh)
        views = shoot(camerawork, states, judge.AZIMUTHS_DEG, judge.ELEVATION_DEG, settings)
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary, views=views, seconds=seconds, floaters=floating(task, states, settings)
            )
        print(f"{name}: {prompt}: {seconds:.0f} s", flush=True)


def floating(task: Task, states, settings: Settings) -> np.ndarray:
    """Share of each seed's opacity outside its largest component, [n]."""
    levels = levels_in_use(states, settings)

    @jax.jit
    def grids(params):
        return jax.lax.map(
            lambda own: floaters.opacity_grid(task.scene.field_fn(own, levels)), params
        )

    return np.array([floaters.floating_share(grid) for grid in np.asarray(grids(states.params))])


def report(args: Args) -> None:
    """Judge every variant that is complete; writes scores.json, table.md and contact sheets."""
    network, bank = load_efficientnet(), banks.load_bank()
    scores = {}
    for name in VARIANTS:
        paths = [result(args, name, prompt) for prompt in args.prompts]
        if all(path.exists() for path in paths):
            found = [dict(np.load(path)) for path in paths]
            scores[name] = judged(args.prompts, found, network, bank)
            sheets = [contact_sheet(f["views"][:, [1, 4, 6]], tile=96) for f in found]
            save_png(paths[0].with_name("seeds.png"), np.concatenate(sheets))
    write_json(args.out / "scores.json", scores)
    table = markdown(scores)
    (args.out / "table.md").write_text(table)
    print(table)


def judged(prompts, found, network, bank) -> dict[str, Any]:
    """Mean scores over prompts, and each prompt's own under "prompts"."""
    each = {}
    for prompt, arrays in zip(prompts, found, strict=True):
        features = features_in_batches(network, arrays["views"])
        fidelity = judge.prompt_fidelity(bank, prompt, features)
        row = {
            "diversity": diversity(features),
            "accepted": fidelity["accepted"],
            "floaters": float(np.median(arrays["floaters"])),
            "seconds": float(arrays["seconds"]),
        }
        category = fidelity["category"]
        if category in DIRECTED:
            known = (bank, category, features, judge.AZIMUTHS_DEG)
            row["direction"] = judge.direction_score(*known)
            row["one_front"] = judge.one_front_score(*known)
        each[prompt] = row
    names = ("diversity", "accepted", "floaters", "seconds", "direction", "one_front")
    values = {n: [r[n] for r in each.values() if r.get(n) is not None] for n in names}
    return {n: float(np.mean(v)) if v else None for n, v in values.items()} | {"prompts": each}


def markdown(scores: dict[str, dict[str, Any]]) -> str:
    """One row a variant; a score nobody could give is a dash."""

    def cell(value, form):
        return "-" if value is None else format(value, form)

    forms = {"diversity": ".2f", "accepted": ".0%", "direction": ".2f", "one_front": ".2f",
             "floaters": ".1%", "seconds": ".0f"}  # fmt: skip
    lines = ["| variant | " + " | ".join(n.replace("_", " ") for n in forms) + " |"]
    lines += ["| --- " * (len(forms) + 1) + "|"]
    for name, row in scores.items():
        lines.append(f"| {name} | " + " | ".join(cell(row[n], f) for n, f in forms.items()) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    validate.set_up_jax()
    sys.exit(main())
