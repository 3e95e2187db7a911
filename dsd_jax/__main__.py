"""`python -m dsd_jax text3d ...` is `dsd text3d ...`."""

import sys

from dsd_jax.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
