"""Text to 3D: several seeds of one prompt, each a different object, all optimised together.

The program is `dsd_jax.cli.text3d`. What it does and expects:

    python experiments/text3d.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("text3d"))
