"""Where every method ends on a prior that is known exactly: a mixture of Gaussians in the plane.

    python experiments/mixture.py --seeds 0:1000

Each seed is one free point and starts from the same noise under every method; the mode that its
ODE leads to is known. Ways to descend: see `dsd_jax/studies/mixture.py`. Writes to runs/mixture/:
table.md, scores.json, and whole_steps.png, adam.png and adam_with_size.png, a panel a method with
paths and end points.

The command above takes 1 to 2 minutes on 2 CPU cores. Expect of whole steps that DSD ends in its
ODE's mode for 99 % of the seeds, FSD for 79 % and SDS for 18 %, which is chance; of Adam 96 % where
the ODE leads DSD, 75 % where it does not, and that all of SDS ends in one mode. The exit code is 3
where a point is not finite.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np

from dsd_jax.cli import flags, validate
from dsd_jax.cli.program import refuse
from dsd_jax.distillation import DSD, METHODS
from dsd_jax.engine import memory
from dsd_jax.engine.lost import LOST
from dsd_jax.engine.results import recipe_config
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.export.paths import save_figure
from dsd_jax.export.tables import markdown
from dsd_jax.files import atomic_path, write_json
from dsd_jax.recipe.recipe import Recipe, changed
from dsd_jax.studies import mixture

COLUMNS = {"same_mode": ".1%", "any_mode": ".1%", "modes": ".2f", "to_mode": ".2f", "to_ode": ".2f"}
EXACT = "exact ODE"


@dataclass(frozen=True)
class Args:
    """Compare methods where the truth is known."""

    seeds: str = "0:1000"
    """0:1000, 0:1000:2, 3 or 1,5,9."""
    methods: str = ",".join(METHODS)
    """Which methods."""
    steps: int = mixture.RECIPE.steps
    """Optimisation steps."""
    ddim_steps: int = 50
    """Grid points of DSD*, which is DDIM."""
    rate: float = mixture.RECIPE.optimise.grid_rate
    """Adam's learning rate."""
    guidance_scale: float = mixture.RECIPE.method.guidance_scale
    """Of all methods and of the ODE; at 1 the ODE samples the prompt's mixture."""
    out: Path = Path("runs/mixture")
    """Folder of the results."""


def main(argv: Sequence[str]) -> int:
    """Parse, check, run; returns the exit code: `LOST` where a seed's point is not finite."""
    try:
        args = flags.cli(Args, argv, __doc__)
        seeds, recipes, base = prepare(args)
    except ValueError as error:
        return refuse(error)
    plane, scale = mixture.six_modes(), args.guidance_scale
    exact = mixture.ddim(plane, seeds, guidance_scale=scale)
    follow = mixture.follow(plane, seeds, args.ddim_steps, scale)
    ddim = mixture.ddim(plane, seeds, args.ddim_steps, scale)
    report: dict[str, Any] = {
        "max_abs_difference_to_ddim": float(jnp.abs(follow - ddim)[:, -1].max())
    }
    text, lost = "", say_lost(EXACT, exact) + say_lost("dsd*", follow)
    for name in get_args(mixture.Way):
        paths = {EXACT: exact, "dsd*": follow}
        for label, recipe in recipes.items():
            paths[label] = mixture.optimise(plane, recipe, seeds, name)
            print(f"{name}: {label}", flush=True)
            lost += say_lost(f"{name}: {label}", paths[label])
        rows = {k: mixture.scores(plane, path[:, -1], exact[:, -1]) for k, path in paths.items()}
        rows = dict(sorted(rows.items(), key=lambda row: -row[1]["same_mode"]))
        figure = mixture.draw(plane, {k: paths[k] for k in rows}, exact[:, -1])
        save_figure(args.out / f"{name.lower().replace(' ', '_')}.png", figure)
        text += f"{name}\n\n{markdown(rows, COLUMNS, 'method')}\n"
        report[name] = rows
    write_json(args.out / "scores.json", report | {"recipe": recipe_config(base)})
    with atomic_path(args.out / "table.md") as temporary:
        temporary.write_text(text, "utf-8")
    print(text + f"max_abs_difference_to_ddim {report['max_abs_difference_to_ddim']:.1e}")
    print(args.out)
    return LOST if lost else 0


def say_lost(label: str, paths: Any) -> int:
    """How many of the paths [n, m, 2] end in no finite point; says so where any do."""
    lost = int((~np.isfinite(paths[:, -1]).all(1)).sum())
    if lost:
        print(f"error: {label}: {lost} of {len(paths)} points are not finite", file=sys.stderr)
    return lost


def prepare(args: Args) -> tuple[list[int], dict[str, Recipe], Recipe]:
    """Check all that can be wrong: seeds, {label: recipe}, and what these have in common.

    DSD gets two more rows: one takes its second prediction on the trajectory, one is led by the
    ODE as long as t falls. Raises ValueError with one line for the user.
    """
    seeds, names = parse_seeds(args.seeds), validate.listed("methods", args.methods)
    for name in names:
        validate.choice("methods", name, METHODS)
    validate.ddim_steps(args.ddim_steps)
    validate.positive("rate", args.rate)
    base = changed(
        mixture.RECIPE, steps=args.steps, grid_rate=args.rate,
        guidance_scale=args.guidance_scale, guidance_scale_prime=args.guidance_scale,
    )  # fmt: skip
    needed = 8 * (2 + 3 * len(names)) * len(seeds) * max(args.steps, 1000)  # of all paths
    if needed > (there := memory.bytes_available()):
        raise ValueError(
            f"{len(seeds)} seeds of {args.steps} steps need about {memory.gb(needed)} of memory, "
            f"but the device has {memory.gb(there)}; make --seeds or --steps fewer"
        )
    validate.writable(args.out)
    recipes = {name: mixture.recipe_by(base, name) for name in names}
    for name in names:
        if issubclass(METHODS[name], DSD):
            recipes[f"{name}, trajectory"] = changed(recipes[name], anchor="trajectory")
            end = base.optimise.t_min
            recipes[f"{name}, led"] = changed(recipes[name], **{"method.lead_until": end})
    return seeds, recipes, base
