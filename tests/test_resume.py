"""Runs of text3d.py that are cut off and started again, also on other devices."""

import json
import random
import signal
import time
from functools import partial

import numpy as np
import pytest
from programs import arguments, end, fields, load_script, results, start

from dsd_jax.cli.job import BAD_INPUT

STEPS = 8
TOLERANCE = 1e-3


FLAGS = ["--max-memory-gb", "0.0005", "--seeds", "0:2", "--steps"]


@pytest.fixture(scope="module")
def command(tiny_prior_folder):
    """--out -> the program with two seeds, one after the other on one device."""

    def run(out, devices=1, steps=STEPS):
        return start(tiny_prior_folder, *FLAGS, steps, "--out", out, devices=devices)

    return run


@pytest.fixture(scope="module")
def unbroken(command, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    said = end(command(out))
    assert "2 seeds in 2 chunks of 1;" in " ".join(said.split())
    return out


def last_step(out) -> int:
    """Of all chunks together: how many steps checkpoints hold."""
    return sum(
        max([int(path.name) for path in chunk.iterdir() if path.name.isdigit()], default=0)
        for chunk in out.glob("*/checkpoints/seeds_*")
    )


def wait_for(program, condition) -> None:
    """Look every millisecond."""
    while program.poll() is None and not condition():
        time.sleep(0.001)


def test_killed_at_random_moments_it_ends_as_the_unbroken_run(command, unbroken, tmp_path):
    check_killed(2, command, unbroken, tmp_path)


@pytest.mark.slow
def test_killed_twenty_times(command, tmp_path):
    end(command(tmp_path / "unbroken", steps=80))
    check_killed(20, partial(command, steps=80), tmp_path / "unbroken", tmp_path / "killed")


def check_killed(kills: int, command, unbroken, tmp_path) -> None:
    """By SIGKILL: while it loads or compiles, between steps, and while a checkpoint is written."""
    rng = random.Random(kills)
    moments = ["writing", "running", *rng.choices(["writing", "running", "starting"], k=kills - 2)]
    for moment in moments:
        program, before = command(tmp_path), last_step(tmp_path)
        if moment == "starting":
            time.sleep(rng.uniform(0, 5))
        else:
            wait_for(program, lambda: last_step(tmp_path) > before)  # noqa: B023
        if moment == "running":
            time.sleep(rng.uniform(0, 0.3))
        if moment == "writing":
            wait_for(program, lambda: any(tmp_path.glob("*/checkpoints/*/*tmp*")))
        program.kill()
        end(program, -signal.SIGKILL)
        assert last_step(tmp_path) >= before
    assert last_step(tmp_path) > 0
    end(command(tmp_path))
    assert results(tmp_path) == results(unbroken)
    assert len(results(unbroken)) == 2 * (2 + 8) + 1
    assert not list(tmp_path.glob("*/checkpoints"))


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_for_other_devices(command, unbroken, tmp_path):
    """Begun on two devices side by side, gone on with on one, and on two again."""
    for devices in (2, 1):
        before, program = last_step(tmp_path), command(tmp_path, devices=devices)
        wait_for(program, lambda before=before: last_step(tmp_path) > before)
        program.terminate()
        said = end(program, 128 + signal.SIGTERM)
        assert "the same command goes on from here" in said
    assert not list(tmp_path.glob("*/metrics.json"))
    assert "over 2 devices" in " ".join(end(command(tmp_path, devices=2)).split())
    ours, theirs = fields(tmp_path), fields(unbroken)
    assert ours.keys() == theirs.keys() == {"seed_0000", "seed_0001"}
    for seed, params in ours.items():
        for name, value in params.items():
            np.testing.assert_allclose(value, theirs[seed][name], atol=TOLERANCE)
    metrics = json.loads(next(tmp_path.glob("*/metrics.json")).read_text())
    assert [seed["steps"] for seed in metrics["seeds"].values()] == [STEPS, STEPS]
    assert all(np.isfinite(seed["loss"]) for seed in metrics["seeds"].values())


def test_another_configuration_is_refused_with_the_difference(unbroken, tiny_prior_folder, capsys):
    (run,) = unbroken.iterdir()
    text3d = load_script("text3d")
    same = arguments(tiny_prior_folder, *FLAGS, STEPS, "--out", run)
    assert text3d.main([*same, "--steps", "9", "--method", "sds"]) == BAD_INPUT
    said = capsys.readouterr().err
    assert f"error: {run} holds a run with --method 'dsd', not 'sds', --steps 8, not 9;" in said
    assert "give the same flags, or another --out" in said
    assert text3d.main(same) == 0
    assert f"{run} is complete: nothing to resume" in capsys.readouterr().out
