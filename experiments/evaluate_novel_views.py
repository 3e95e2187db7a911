"""Evaluation of single_view.py: held-out objects, made from one picture, beside what they are.

The program is `dsd_jax.cli.evaluate_novel_views`. What it does and expects:

    python experiments/evaluate_novel_views.py --help
"""

import sys

from dsd_jax.cli.program import start

if __name__ == "__main__":
    sys.exit(start("evaluate_novel_views"))
