"""Single view to 3D: several seeds of one picture, objects that agree with it and differ behind.

The program is `dsd_jax.cli.single_view`. What it does and expects:

    python experiments/single_view.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("single_view"))
