"""Train Toybox, the embedded prior, from packed 3D objects.

    python experiments/train_prior.py --objects objects.npz --out checkpoints/toybox

Renders the objects (on the accelerator, never stored), trains the autoencoder, encodes the views
in several palettes, trains the denoiser and the text encoder on them, and exports the Stable
Diffusion folder `OUT/export`. Every stage continues where it stopped: run the same command again.
`--evaluate FOLDER` scores an exported folder instead.

    python experiments/train_prior.py --task novel-view --objects objects.npz \\
        --out checkpoints/toybox-1to3 --unet-batch 512 --unet-minutes 10

trains Toybox-1-to-3, which knows one picture instead of a prompt, on pairs of views: a denoiser, a
vision encoder and `cc_projection` beside Toybox's autoencoder. It exports
`OUT/export/toybox-1to3`, and OUT/sheet.jpg: samples for objects that are held out.
How the packaged ones were trained stands in their model cards. `--continue-from` starts from
exported weights. `--evaluate` takes 15 minutes on 2 CPU cores.

On a GPU the first step takes ten minutes to compile, the first time: XLA times every convolution's
algorithms. It took longer still without

    export XLA_FLAGS="--xla_gpu_experimental_enable_fusion_autotuner=false \\
        --xla_gpu_enable_triton_gemm=false"
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jax
import tyro

from dsd_jax.checks import at_least, flag, fractions, is_finite
from dsd_jax.cli import flags, validate
from dsd_jax.cli.program import refuse
from dsd_jax.data import objects as objects_lib
from dsd_jax.training import common, evaluate, novel_view_prior, novel_view_scores, text_prior
from dsd_jax.training.settings import TrainingSettings

LARGEST = 1024  # pixels


@dataclass(frozen=True)
class Args:
    """Train Toybox, or score an exported prior."""

    objects: Path
    """Packed objects, as experiments/tools/pack_objects.py writes them."""
    task: Literal["text", "novel-view"] = "text"
    """What to train: a prior of text, or of novel views of a picture."""
    evaluate: Path | None = None
    """Score this exported folder, draw sheets of its samples, and stop."""
    max_minutes: float = float("inf")
    """Stop after this long, ready to be continued."""
    limit: int = 0
    """Use only the first so many objects (0: all), for a trial."""
    training: tyro.conf.OmitArgPrefixes[TrainingSettings] = field(default_factory=TrainingSettings)


def main(argv: Sequence[str]) -> int:
    """Parse, check, train; returns the exit code."""
    try:
        args = flags.cli(Args, argv, __doc__)
        check(args)
    except (ValueError, OSError) as error:
        return refuse(error)
    return run(args)


def check(args: Args) -> None:
    """Refuse numbers and folders that cannot work, before anything is read.

    Raises ValueError with one line for the user.
    """
    own, novel = args.training, args.task == "novel-view"
    validate.local_files("objects", args.objects)
    validate.writable(own.out)
    for name in ("vae_minutes", "unet_minutes"):
        value = getattr(own, name)
        if not (value >= 0 and is_finite(value)):
            raise ValueError(f"--{flag('', name)} must be a number from 0 on, not {value}")
    if not args.max_minutes >= 0:
        raise ValueError(f"--max-minutes must be a number from 0 on, not {args.max_minutes}")
    for name in ("vae_rate", "unet_rate"):
        validate.positive(flag("", name), getattr(own, name))
    if not (own.noisy_weight >= 1 and is_finite(own.noisy_weight)):
        raise ValueError(f"--noisy-weight must be a number from 1 on, not {own.noisy_weight}")
    at_least(own, "", 1, "groups", "palettes", "vae_batch", "unet_batch", "latent_channels")
    at_least(own, "", 0, "deformed")
    if args.limit < 0 or not 0 <= own.seed < 2**32:
        raise ValueError("--limit must be from 0 on, and --seed from 0 to 4294967295")
    fractions(own, "", "vae_sharpness")
    step = 16 if own.small or novel else 32  # pixels of what the networks see coarsest
    if not step <= own.resolution <= LARGEST or own.resolution % step:
        raise ValueError(
            f"--resolution must be a multiple of {step} up to {LARGEST}, not {own.resolution}"
        )
    parts = ("image_encoder",) if novel else ("text_encoder", "tokenizer")
    for name, folder, needed in (
        ("continue-from", own.continue_from, parts), ("vae", own.vae, ("vae",)),
        ("evaluate", args.evaluate, parts),
    ):  # fmt: skip
        missing = [part for part in needed if folder and not (folder / part).is_dir()]
        if missing:
            raise ValueError(
                f"--{name} {folder} is no folder of a prior with {' and '.join(needed)}: it has no "
                f"{missing[0]}; give one that train_prior.py exported, and its --task"
            )


def print_with_time(message: str) -> None:
    """What is told while a prior is trained."""
    print(time.strftime("%H:%M:%S"), message, flush=True)


def run(args: Args, log: Callable[[str], None] = print_with_time) -> int:
    """Read the objects, train or score; returns the exit code."""
    start, novel, out = time.time(), args.task == "novel-view", args.training.out
    try:
        data = objects_lib.load_objects(args.objects)
        data = objects_lib.first(data, args.limit) if args.limit else data
        out.mkdir(parents=True, exist_ok=True)
        if args.evaluate:
            evaluate_it = novel_view_scores.run if novel else evaluate.run
            evaluate_it(args.evaluate, data, out, log)
            return 0
        mesh = common.data_mesh()
        log(f"{len(data)} objects, {mesh.size} x {jax.devices()[0].device_kind}")
        train = novel_view_prior.train if novel else text_prior.train
        finished = train(args.training, data, mesh, start + 60 * args.max_minutes, log)
    except (ValueError, OSError) as error:
        return refuse(error)
    log(f"{(time.time() - start) / 60:.1f} min in all")
    if not finished:
        log("stopped at --max-minutes: run the same command again to continue")
    return 0
