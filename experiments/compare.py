"""Comparison of the methods: the same prompts, seeds and numbers, in 2D or 3D.

The program is `dsd_jax.cli.compare`. What it does and expects:

    python experiments/compare.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("compare"))
