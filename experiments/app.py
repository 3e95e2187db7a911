"""A page for the browser: type a prompt or give a picture, watch its seeds grow, turn each object.

The program is `dsd_jax.cli.app`. What it does and expects:

    python experiments/app.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("app"))
