"""Gaussian splats of a finished run: seed_0000/splats.ply and so on.

The program is `dsd_jax.cli.export_splats`. What it does and expects:

    python experiments/export_splats.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("export_splats"))
