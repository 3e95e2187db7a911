"""Train Toybox, the embedded prior, from packed 3D objects.

The program is `dsd_jax.cli.train_prior`. What it does and expects:

    python experiments/train_prior.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("train_prior"))
