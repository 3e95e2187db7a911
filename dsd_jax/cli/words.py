"""What Toybox knows: the categories of the objects that it was trained on.

    dsd words
    dsd words --all        every word of its prompts, the commonest first

A prompt that names one of the categories is also what the judge can score.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dsd_jax.cli import flags
from dsd_jax.cli.program import refuse
from dsd_jax.metrics.bank import load_bank
from dsd_jax.priors import EMBEDDED


@dataclass(frozen=True)
class Args:
    """List what Toybox has seen."""

    all: bool = False
    """Every word, with the number of objects whose captions have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the list; returns the exit code."""
    try:
        args = flags.cli(Args, argv, __doc__)
        if args.all:
            words = json.loads((EMBEDDED["toybox"] / "words.json").read_text("utf-8"))
            lines = [f"{word} {count}" for word, count in words.items()]
        else:
            lines = sorted(load_bank().categories)
    except (ValueError, FileNotFoundError) as error:
        return refuse(error)
    print("\n".join(lines))
    return 0
