"""Look at finished runs in the browser: all seeds side by side, one of them rendered live.

The program is `dsd_jax.cli.view`. What it does and expects:

    python experiments/view.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("view"))
