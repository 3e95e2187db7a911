"""The page of a finished run: index.html in its folder, to be opened in a browser from disk.

The program is `dsd_jax.cli.export_gallery`. What it does and expects:

    python experiments/export_gallery.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("export_gallery"))
