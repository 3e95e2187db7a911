"""What Toybox knows: the categories of the objects that it was trained on.

The program is `dsd_jax.cli.words`. What it does and expects:

    python experiments/words.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("words"))
