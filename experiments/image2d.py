"""Text to pictures in 2D: every method on a free image, all seeds at once.

    python experiments/image2d.py --prompt "a house" --method dsd --seeds 0:16

With `--method dsd` on latents the optimisation follows each seed's ODE exactly (DSD*): with as many
steps as DDIM the result is DDIM's image, and the program prints and writes by how much it differs.
With `--descent plain` it takes plain steps of size one down the gradient of 3D in its published,
interpolated form, from the seed's one-step prediction at T: DDIM again if `--ode-points` is one
more than the steps, see `images2d.descend`. Everything else is Adam on the method's gradient.

Writes to runs/<prompt>-<hash>/: config.json, metrics.json, seed_0000.png and so on, grid.png (above
DDIM's pictures of the same seeds) and strip.png (a column a seed, the optimisation downwards).

The command above takes 2 minutes on 2 CPU cores; expect a difference to DDIM below 1e-4.
"""

import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
import tyro

import dsd_jax
from dsd_jax.cli import validate
from dsd_jax.distillation import METHODS
from dsd_jax.engine.results import score
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.export.run_folder import run_folder
from dsd_jax.files import write_json
from dsd_jax.metrics.scores import by_pairs
from dsd_jax.priors import choose_precision, load_prior
from dsd_jax.recipe.checks import check
from dsd_jax.recipe.presets import Settings
from dsd_jax.studies import images2d

WAYS = {"ode": images2d.follow, "plain": images2d.descend, "adam": images2d.optimise}


@dataclass(frozen=True)
class Args:
    """Optimise one picture per seed."""

    prompt: str = ""
    """What to make, for instance "a house"."""
    seeds: str = "0:4"
    """0:16, 0:16:2, 3 or 1,5,9."""
    method: str = "dsd"
    """sds, csd, nfsd, ism, vsd, asd, sdi, fsd, cfd or dsd."""
    prior: str = "toybox"
    """As in text3d.py."""
    space: Literal["latents", "pixels", "network"] = "latents"
    """What is optimised: latents, pixels, or a small coordinate network."""
    descent: Literal["ode", "plain", "adam"] | None = None
    """Along the ODE itself (DSD*), by plain steps, or by Adam as in 3D (None: ode for DSD on
    latents, else adam)."""
    steps: int = 50
    """Optimisation steps."""
    ddim_steps: int = 50
    """Grid points of the DDIM samples to compare with."""
    guidance_scale: float = 5.0
    rate: float = 0.03
    """Adam's learning rate."""
    t_max: float = 0.98
    t_min: float = 0.02
    """Where t starts and ends, as fractions of the prior's timesteps."""
    ode_points: int = 11
    """DDIM grid points of DSD's simulated ODE, if it does not go along the ODE itself."""
    eta: float = 0.0
    """Share of fresh noise in DSD's eps at t_min."""
    azimuth_deg: float = 30.0
    elevation_deg: float = 15.0
    """The view, for a prior that knows cameras."""
    out: Path = Path("runs")
    """Where the run's folder goes."""


def main(argv: list[str] | None = None) -> int:
    """Parse, check, run; returns the exit code."""
    began = time.monotonic()
    args = tyro.cli(Args, args=argv, description=__doc__)
    try:
        task, seeds, folder = prepare(args)
        validate.make_folder(folder)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    result = WAYS[descent_of(args)](task, seeds, progress(args))
    reference = images2d.ddim(task, seeds, args.ddim_steps)
    images, sampled = np.asarray(result.images), np.asarray(reference)
    metrics = summary(args.prompt, images, sampled) | {"seconds": time.monotonic() - began}
    for seed, image in zip(seeds, images, strict=True):
        save_png(folder / f"seed_{seed:04d}.png", image)
    labels = [f"seed {seed}" for seed in seeds]
    save_png(folder / "grid.png", contact_sheet(np.stack([images, sampled], 1), labels))
    save_png(folder / "strip.png", contact_sheet(np.asarray(result.strip), labels))
    write_json(folder / "config.json", dataclasses.asdict(args) | {"version": dsd_jax.__version__})
    write_json(folder / "metrics.json", metrics)
    print(f"max_abs_difference_to_ddim {metrics['max_abs_difference_to_ddim']:.2e}")
    print(folder)
    return 0


def prepare(args: Args) -> tuple[images2d.Task, list[int], Path]:
    """Check all that can be wrong and load the prior; writes nothing."""
    validate.prompt(args.prompt)
    seeds = parse_seeds(args.seeds)
    validate.choice("method", args.method, METHODS)
    descent = descent_of(args)
    if args.ddim_steps < 2 or (descent == "ode" and args.steps < 2):
        raise ValueError("--steps and --ddim-steps must be at least 2: an ODE needs two points")
    if descent != "adam" and args.space != "latents":
        raise ValueError(f"--descent {descent} moves latents alone, not --space {args.space}")
    if descent == "ode" and args.method != "dsd":
        raise ValueError(f"--descent ode is for --method dsd alone, not {args.method}")
    settings = Settings(
        steps=args.steps, guidance_scale=args.guidance_scale, views=1, grid_rate=args.rate,
        t_max=args.t_max, t_min=args.t_min, eta=args.eta, ode_points=args.ode_points,
        anchor="interpolated" if descent == "plain" else "trajectory",
    )  # fmt: skip
    check(settings)
    validate.writable(args.out)
    prior = load_prior(args.prior, jnp.dtype(choose_precision()))
    azimuth, elevation = np.deg2rad(args.azimuth_deg), np.deg2rad(args.elevation_deg)
    task = images2d.make_task(
        prior, args.prompt, METHODS[args.method], settings, azimuth, elevation, args.space
    )
    config = dataclasses.asdict(args)
    return task, seeds, run_folder(args.out, args.prompt, {k: str(v) for k, v in config.items()})


def descent_of(args: Args) -> str:
    """How this run moves, one of `WAYS`."""
    on_ode = args.method == "dsd" and args.space == "latents"
    return args.descent or ("ode" if on_ode else "adam")


def progress(args: Args):
    """Prints a line every tenth of the steps."""
    every = max(1, args.steps // 10)

    def on_step(step: int) -> None:
        if step % every == 0 or step == args.steps:
            print(f"step {step} of {args.steps}", flush=True)

    return on_step


def summary(prompt: str, images: np.ndarray, sampled: np.ndarray) -> dict:
    """Scores of the pictures [n, H, W, 3] and of DDIM's of the same seeds."""
    distance = np.sqrt(np.mean(np.square(images[:, None] - sampled[None]), axis=(2, 3, 4)))

    def scores(pictures):
        found = score(prompt, (pictures[:, None] * 255).round().astype(np.uint8))
        return {"diversity": found["diversity"], "accepted": found["fidelity"]["accepted"]}

    return scores(images) | {
        "ddim": scores(sampled),
        "max_abs_difference_to_ddim": float(np.abs(images - sampled).max()),
        "rms_difference_to_ddim": np.diagonal(distance).tolist(),
        "nearest_to_own_ddim": by_pairs(distance)["nearest_own"] if len(images) > 1 else None,
    }


if __name__ == "__main__":
    validate.set_up_jax()
    sys.exit(main())
