"""Text to pictures in 2D: every method on a free image, all seeds at once.

The program is `dsd_jax.cli.image2d`. What it does and expects:

    python experiments/image2d.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("image2d"))
