"""Where every method ends on a prior that is known exactly: a mixture of Gaussians in the plane.

The program is `dsd_jax.cli.mixture`. What it does and expects:

    python experiments/mixture.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("mixture"))
