"""`dsd app` as a Hugging Face Space, which looks for it at port 7860 of all addresses."""

import os
import sys
from pathlib import Path

from dsd_jax.cli.program import start

kept = Path("/data")
out = kept / "runs" if os.access(kept, os.W_OK) else Path("runs")
flags = ["--host", "0.0.0.0", "--out", str(out), "--seeds", "4", "--presets", "draft", "quick"]

if __name__ == "__main__":
    sys.exit(start("app", flags))
