"""Meshes of a finished run: seed_0000/mesh.glb and so on, to take into other programs.

The program is `dsd_jax.cli.export_mesh`. What it does and expects:

    python experiments/export_mesh.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("export_mesh"))
