"""A prior with the networks of a published model and random weights: to measure, not to make art.

    python experiments/tools/random_prior.py --architecture sd21-base --out runs/random-sd21
    python experiments/text3d.py --prior runs/random-sd21 --prompt "a house" --steps 20

Memory and speed are those of the real model, and nothing is downloaded. The folder is in diffusers
layout, float16, 2.6 GB for SD 2.1-base and 2.1 GB for SD 1.5; the tokenizer is Toybox's.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dsd_jax.cli import flags, validate
from dsd_jax.models.architectures import ARCHITECTURES, random_params
from dsd_jax.models.networks import build, count, param_shapes
from dsd_jax.models.weights import Pipeline, save_pipeline
from dsd_jax.priors import EMBEDDED


@dataclass(frozen=True)
class Args:
    """Write a prior with random weights."""

    out: Path
    """Folder to write; what is there already is overwritten."""
    architecture: str = "sd21-base"
    """sd15 or sd21-base."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the weights in the files."""
    seed: int = 0
    """Seed of the weights."""


def main(argv: list[str] | None = None) -> int:
    """Parse, check, write; returns the exit code."""
    try:
        args = flags.cli(Args, argv, __doc__)
        validate.choice("architecture", args.architecture, ARCHITECTURES)
        validate.writable(args.out)
        if args.seed < 0:
            raise ValueError(f"--seed must not be negative, not {args.seed}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    began = time.monotonic()
    write(args)
    print(f"{args.out}: {time.monotonic() - began:.1f} s")
    return 0


def write(args: Args) -> None:
    """The folder; Toybox's tokens are the first of the text encoder's vocabulary."""
    networks = build(*ARCHITECTURES[args.architecture])
    shapes = param_shapes(networks)
    for name, tree in shapes.items():
        print(f"{name}: {count(tree):,} parameters")
    pipeline = Pipeline(networks, random_params(shapes, args.seed))
    save_pipeline(args.out, pipeline, EMBEDDED["toybox"] / "tokenizer", getattr(np, args.dtype))
    length = networks.text_encoder.config.max_position_embeddings
    file = args.out / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": length}))


if __name__ == "__main__":
    sys.exit(main())
