"""Runs of text3d.py that are cut off and started again, many times and on other devices.

That a run cut off once ends as the unbroken one is shown in test_text3d.py.
"""

import json
import random
import signal
import time

import numpy as np
import pytest
from programs import end, fields, files_of, start, wait_for

pytestmark = pytest.mark.slow
TOLERANCE = 1e-3
FLAGS = ["--max-memory-gb", "0.0005", "--seeds", "0:2", "--steps"]


@pytest.fixture(scope="module")
def command(tiny_prior_folder):
    """--out -> the program with two seeds, one after the other on one device."""

    def run(out, devices=1, steps=8):
        return start(tiny_prior_folder, *FLAGS, steps, "--out", out, devices=devices)

    return run


def last_step(out) -> int:
    """Of all chunks together: how many steps checkpoints hold."""
    return sum(
        max([int(path.name) for path in chunk.iterdir() if path.name.isdigit()], default=0)
        for chunk in out.glob("*/checkpoints/seeds_*")
    )


def test_killed_twenty_times_it_ends_as_the_unbroken_run(command, tmp_path):
    """By SIGKILL: while it loads or compiles, between steps, and while a checkpoint is written."""
    unbroken, killed, steps = tmp_path / "unbroken", tmp_path / "killed", 80
    assert "2 seeds in 2 chunks of 1;" in " ".join(end(command(unbroken, steps=steps)).split())
    rng = random.Random(20)
    moments = ["writing", "running", *rng.choices(["writing", "running", "starting"], k=18)]
    for moment in moments:
        program, before = command(killed, steps=steps), last_step(killed)
        if moment == "starting":
            time.sleep(rng.uniform(0, 5))
        else:
            wait_for(program, lambda: last_step(killed) > before)  # noqa: B023
        if moment == "running":
            time.sleep(rng.uniform(0, 0.3))
        if moment == "writing":
            wait_for(program, lambda: any(killed.glob("*/checkpoints/*/*tmp*")))
        program.kill()
        end(program, -signal.SIGKILL)
        assert last_step(killed) >= before
    assert last_step(killed) > 0
    end(command(killed, steps=steps))
    assert files_of(killed) == files_of(unbroken)
    assert len(files_of(unbroken)) == 2 * (2 + 8) + 1
    assert not list(killed.glob("*/checkpoints"))


def test_sigterm_leaves_a_checkpoint_for_other_devices(command, tmp_path):
    """Begun on two devices side by side, gone on with on one, and on two again."""
    unbroken, out = tmp_path / "unbroken", tmp_path / "out"
    end(command(unbroken))
    for devices in (2, 1):
        before, program = last_step(out), command(out, devices=devices)
        wait_for(program, lambda before=before: last_step(out) > before)
        program.terminate()
        said = end(program, 128 + signal.SIGTERM)
        assert "the same command goes on from here" in said
    assert not list(out.glob("*/metrics.json"))
    assert "over 2 devices" in " ".join(end(command(out, devices=2)).split())
    ours, theirs = fields(out), fields(unbroken)
    assert ours.keys() == theirs.keys() == {"seed_0000", "seed_0001"}
    for seed, params in ours.items():
        for name, value in params.items():
            np.testing.assert_allclose(value, theirs[seed][name], atol=TOLERANCE)
    metrics = json.loads(next(out.glob("*/metrics.json")).read_text())
    assert [seed["steps"] for seed in metrics["seeds"].values()] == [8, 8]
    assert all(np.isfinite(seed["loss"]) for seed in metrics["seeds"].values())
