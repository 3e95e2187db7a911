"""What text3d.py says that it will take of memory, and what it takes: real runs of Toybox."""

import json
import os
import subprocess
import sys

import pytest
from programs import EXPERIMENTS, ROOT

pytestmark = pytest.mark.slow
# All that takes memory, and little of what takes time. Two devices, as on two cores.
FLAGS = ["--prompt", "a house", "--preset", "quick", "--steps", "3", "--rounds", "0",
         "--turntable-frames", "2", "--azimuth-bins", "1", "--no-mesh",
         "--devices", "2"]  # fmt: skip


def run(out, *flags) -> tuple[float, float, str]:
    """1e9 bytes planned and taken, and what was said."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, EXPERIMENTS / "text3d.py", *FLAGS, *flags, "--out", out],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads(next(out.glob("*/metrics.json")).read_text())
    said = " ".join(done.stderr.split())
    return metrics["planned_memory_gb"]["in_all"], metrics["peak_memory_gb"]["host"], said


@pytest.mark.parametrize("seeds", [4, 16, 64])
def test_what_is_planned_is_near_what_is_taken(tmp_path, seeds):
    planned, taken, said = run(tmp_path, "--seeds", f"0:{seeds}")
    assert planned == pytest.approx(taken, rel=0.2)
    assert f"in all {planned:.2f} GB" in said


def test_what_may_be_taken_is_not_exceeded(tmp_path):
    planned, taken, said = run(tmp_path, "--seeds", "0:64", "--max-memory-gb", "2.3")
    assert max(planned, taken) <= 2.3
    assert "64 seeds in " in said
