"""Ablation of the text-to-3D recipe: one change at a time, the same prompts and seeds.

The program is `dsd_jax.cli.ablate`. What it does and expects:

    python experiments/ablate.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("ablate"))
