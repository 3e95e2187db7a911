"""Text to pictures in 2D: every method on a free image, all seeds at once.

    python experiments/image2d.py --prompt "a house" --seeds 0:16
    python experiments/image2d.py --prompt "a house" --seeds 0:16 --method sds --space pixels

The methods are those of compare.py. Two move latents along an ODE, all others are Adam's:

    dsd-star   each seed's ODE itself (DSD*): with as many steps as DDIM the result is DDIM's image,
               and the program prints and writes by how much it differs
    dsd-plain  the gradient of 3D in its published, interpolated form, by plain steps of size one
               from the seed's one-step prediction at T, with the ODE simulated on as many steps:
               DDIM again, see `images2d.descend`
    dsd        the gradient of 3D

Writes to runs/<prompt>-<hash>/: config.json, metrics.json, seed_0000.png and so on, grid.png (above
DDIM's pictures of the same seeds) and strip.png (a column a seed, the optimisation downwards).

The first command takes 2 minutes on 2 CPU cores; expect a difference to DDIM below 1e-4.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import dsd_jax
from dsd_jax.cli import flags, lock, run_args, validate
from dsd_jax.cli.program import FAILED, refuse
from dsd_jax.engine.lost import LOST
from dsd_jax.engine.results import recipe_config
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.engine.task import warnings_of
from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.export.run_folder import run_folder
from dsd_jax.files import sweep, write_json
from dsd_jax.metrics.scores import by_pairs, of_prompt
from dsd_jax.priors import choose_precision, load_prior
from dsd_jax.recipe.recipe import Recipe, changed
from dsd_jax.schedule import MAX_TIMESTEPS
from dsd_jax.studies import images2d
from dsd_jax.studies.batch import Naming
from dsd_jax.studies.free import ImageTask

STEPS = 50
# What metrics.json says where every seed is lost.
NOTHING = dict.fromkeys(
    ("diversity", "accepted", "ddim", "max_abs_difference_to_ddim", "rms_difference_to_ddim",
     "nearest_to_own_ddim")
)  # fmt: skip


@dataclass(frozen=True)
class Args:
    """Optimise one picture per seed."""

    prompt: str = ""
    """What to make, for instance "a house"."""
    seeds: str = "0:4"
    """0:16, 0:16:2, 3 or 1,5,9."""
    method: str = images2d.STAR
    """dsd-star, dsd-plain, sds, csd, nfsd, ism, vsd, asd, sim, sdi, fsd, cfd or dsd."""
    prior: str = "toybox"
    """As in text3d.py."""
    space: str = "latents"
    """What is optimised: latents, pixels, or a small coordinate network."""
    steps: int = STEPS
    """Optimisation steps."""
    ddim_steps: int = 50
    """Grid points of the DDIM samples to compare with."""
    guidance_scale: float = 5.0
    """How strictly the prompt is followed."""
    rate: float = images2d.PICTURES.optimise.grid_rate
    """Adam's learning rate."""
    azimuth_deg: float = 30.0
    elevation_deg: float = 15.0
    """The view, for a prior that knows cameras."""
    out: Path = Path("runs")
    """Where the run's folder goes."""


def main(argv: Sequence[str]) -> int:
    """Parse, check, run; returns the exit code: `LOST` where a seed's picture is not finite."""
    began = time.monotonic()
    try:
        args, recipe = parse(argv)
        image, seeds, config = prepare(args, recipe)
        folder = run_folder(args.out, args.prompt, config)
        validate.make_folder(folder)
    except (ValueError, OSError) as error:
        return refuse(error)
    try:
        with lock.held(folder):
            sweep(folder)
            return run(args, recipe, image, seeds, config, folder, began)
    except lock.Held as error:
        return refuse(error)
    except OSError as error:
        return refuse(error, FAILED)


def run(
    args: Args, recipe: Recipe, image: ImageTask, seeds: list[int], config: dict[str, Any],
    folder: Path, began: float,
) -> int:  # fmt: skip
    """Make the pictures and write them; returns the exit code."""
    naming = Naming(args.prompt, seeds, recipe.steps)
    result = images2d.way_of(args.method)(image, seeds, progress(naming, recipe.steps))
    reference = images2d.ddim(image, seeds, args.ddim_steps)
    images, sampled = np.asarray(result.images), np.asarray(reference)
    left = images2d.finite(images) & images2d.finite(sampled)
    lost = [seed for seed, fine in zip(seeds, left.tolist(), strict=True) if not fine]
    naming.say(~left, "its picture is not finite")
    metrics = summary(args.prompt, images[left], sampled[left]) if left.any() else NOTHING
    metrics = metrics | {"seconds": time.monotonic() - began, "lost": lost}
    for seed, picture in zip(seeds, images, strict=True):
        if seed not in lost:
            save_png(folder / f"seed_{seed:04d}.png", picture)
    labels = [f"seed {seed}{': lost' if seed in lost else ''}" for seed in seeds]
    save_png(folder / "grid.png", contact_sheet(np.stack([images, sampled], 1), labels))
    save_png(folder / "strip.png", contact_sheet(np.asarray(result.strip), labels))
    write_json(folder / "config.json", config)
    write_json(folder / "metrics.json", metrics)
    if left.any():
        print(f"max_abs_difference_to_ddim {metrics['max_abs_difference_to_ddim']:.2e}")
    print(folder)
    return LOST if lost else 0


def parse(argv: Sequence[str]) -> tuple[Args, Recipe]:
    """The command line over the defaults of its method.

    Raises ValueError for what is no method, and where the recipe refuses a number.
    """
    method = flags.flag_value(argv, "method") or images2d.STAR
    validate.choice("method", method, images2d.NAMES)
    steps = _number(flags.flag_value(argv, "steps"), STEPS)
    scale = images2d.PICTURES.method.guidance_scale
    for name in ("method.guidance-scale", "guidance-scale", "guidance_scale"):
        scale = _number(flags.flag_value(argv, name), scale)
    usual = changed(images2d.PICTURES, steps=steps, guidance_scale=scale)
    usual = images2d.recipe_by(usual, method)
    default = Args(method=method, steps=steps, guidance_scale=scale)
    args, recipe = flags.parse(Args, argv, __doc__ or "", default, usual)
    validate.positive("rate", args.rate)
    values: dict[str, Any] = {"steps": args.steps}
    if args.guidance_scale != usual.method.guidance_scale:
        values["guidance_scale"] = args.guidance_scale
    if args.rate != usual.optimise.grid_rate:
        values["grid_rate"] = args.rate
    return args, changed(recipe, **values)


def _number(text: str | None, otherwise: Any) -> Any:
    """A number of the command line, of the type that it has otherwise; what is none says tyro."""
    try:
        return otherwise if text is None else type(otherwise)(text)
    except ValueError:
        return otherwise


def prepare(args: Args, recipe: Recipe) -> tuple[ImageTask, list[int], dict[str, Any]]:
    """Check all that can be wrong and load the prior: task, seeds and config; writes nothing.

    Raises ValueError or FileNotFoundError with one line for the user.
    """
    validate.prompt(args.prompt)
    seeds = parse_seeds(args.seeds)
    validate.choice("space", args.space, images2d.SPACES)
    star = args.method == images2d.STAR
    if args.ddim_steps < 2 or (star and recipe.steps < 2):
        raise ValueError("--steps and --ddim-steps must be at least 2: an ODE needs two points")
    if max(args.ddim_steps, star * recipe.steps) > MAX_TIMESTEPS:
        raise ValueError(f"the most of --ddim-steps, and --steps of an ODE, are {MAX_TIMESTEPS}")
    if args.method in images2d.ON_LATENTS and args.space != "latents":
        raise ValueError(
            f"--method {args.method} moves latents alone, not --space {args.space}; "
            "take --method dsd, or leave --space out"
        )
    validate.view(args.azimuth_deg, args.elevation_deg)
    validate.writable(args.out)
    prior = load_prior(args.prior, jnp.dtype(choose_precision()))
    run_args.warn(warnings_of(prior, [args.prompt], [recipe]))
    place = np.deg2rad(args.azimuth_deg), np.deg2rad(args.elevation_deg)
    make_task = partial(images2d.make_task, prior, args.prompt, recipe, *place, args.space)
    images2d.refuse_too_many(make_task(only_shapes=True), seeds)
    image = make_task()
    config = {k: v for k, v in dataclasses.asdict(args).items() if k != "out"}
    config |= {"recipe": recipe_config(recipe), "version": dsd_jax.__version__}
    return image, seeds, config


def progress(naming: Naming, steps: int) -> images2d.OnStep:
    """Prints a line every tenth of the steps, and has seeds that diverged named."""

    def on_step(step: int, frozen: Any) -> None:
        if naming.is_time(step):
            print(f"step {step} of {steps}", flush=True)
        naming(step, frozen)

    return on_step


def summary(prompt: str, images: np.ndarray, sampled: np.ndarray) -> dict:
    """Scores of the pictures [n, H, W, 3] and of DDIM's of the same seeds."""
    distance = np.sqrt(np.mean(np.square(images[:, None] - sampled[None]), axis=(2, 3, 4)))

    def scores(pictures):
        found = of_prompt(prompt, (pictures[:, None] * 255).round().astype(np.uint8)).run
        return {"diversity": found["diversity"], "accepted": found["fidelity"]["accepted"]}

    return scores(images) | {
        "ddim": scores(sampled),
        "max_abs_difference_to_ddim": float(np.abs(images - sampled).max()),
        "rms_difference_to_ddim": np.diagonal(distance).tolist(),
        "nearest_to_own_ddim": by_pairs(distance)["nearest_own"] if len(images) > 1 else None,
    }
