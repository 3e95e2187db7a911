"""What tests of the real text3d.py share: a tiny command, and how its processes are started."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
# A step a block, so that a run of milliseconds has moments to be cut off at.
_PROGRAM = """
import runpy, sys
from dsd_jax.optimization import loop
loop.BLOCK_SECONDS = 0.0
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SMALL = [
    "--preset", "quick", "--resolution", "8", "--late-resolution", "8", "--samples", "4",
    "--levels", "2", "--start-levels", "2", "--log2-entries", "8", "--width", "8",
    "--occupancy-resolution", "8", "--turntable-frames", "2", "--turntable-resolution", "16",
    "--preview-resolution", "8", "--final-samples", "4",
]  # fmt: skip


def start(prior: Path, cache: Path, *flags: object, devices: int = 1) -> subprocess.Popen:
    """text3d.py with a prior and flags, writing a checkpoint after every step."""
    script = str(ROOT / "experiments" / "text3d.py")
    command = [sys.executable, "-c", _PROGRAM, script]
    command += ["--prompt", "a red house", "--prior", str(prior), "--checkpoint-minutes", "0"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        [*command, *SMALL, *map(str, flags)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def end(program: subprocess.Popen, code: int = 0) -> str:
    """Wait for a program that ends with this exit code; returns what it said."""
    said, _ = program.communicate(timeout=600)
    assert program.returncode == code, said
    return said


def fields(out: Path) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of each seed of the one run in a folder."""
    from safetensors.numpy import load_file

    files = sorted(out.glob("*/seed_*/field.safetensors"))
    return {file.parent.name: load_file(file) for file in files}


def results(out: Path) -> dict[str, bytes]:
    """Every seed's files in a folder of one run, but for videos."""
    files = [*out.glob("*/seed_*/field.*"), *out.glob("*/seed_*/views/*"), *out.glob("*/seeds.png")]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}
