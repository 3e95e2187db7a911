"""Runs of text3d.py that are cut off and started again, many times and on other devices.

That a run cut off once ends as the unbroken one is shown in test_text3d.py.
"""

import contextlib
import gc
import json
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from programs import (
    arguments,
    end,
    fields,
    files_of,
    in_miniature,
    load_script,
    start,
    wait_for,
)

from dsd_jax.cli.logs import read_log
from dsd_jax.export import manifest
from dsd_jax.export.run_folder import read_metrics
from dsd_jax.files import read_json

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


def results(out) -> dict[str, object]:
    """Every file of the runs in a folder, videos too; what is a time or a memory left out."""
    found = {}
    for run in out.glob("*-*"):
        for name in read_json(run / "manifest.json", files=dict)["files"]:
            found[f"{run.name}/{name}"] = (run / name).read_bytes()
        del found[f"{run.name}/index.html"]
        metrics = read_metrics(run)
        for name in ("seconds", "peak_memory_gb", "iterations_per_second"):
            del metrics[name]
        found[f"{run.name}/metrics.json"] = metrics
        assert manifest.faults(run) == []
        kept = {file.name for file in run.iterdir()} - {"log.jsonl", "checkpoints"}
        events = {name for name in kept if name.startswith("events.out")}
        assert not [name for name in kept - events if name.startswith(".")]
        steps = [line["step"] for line in read_log(run / "log.jsonl")]
        assert steps == sorted(set(steps))
    return found


@pytest.mark.parametrize(
    ("more", "kills"),
    [(["--mesh"], 20), (["--prompts", "a house", "red"], 5)],
    ids=["one", "several"],
)
def test_killed_at_random_it_ends_with_every_file_of_the_unbroken_run(
    tiny_prior_folder, tmp_path, more, kills
):
    """By SIGKILL at any moment of a whole run, loading, results and meshes included."""
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    flags = [*more, "--seeds", "0:2", "--steps", 8, "--out"]
    end(start(tiny_prior_folder, *flags, unbroken))  # what is compiled is kept
    shutil.rmtree(unbroken)
    began = time.monotonic()
    end(start(tiny_prior_folder, *flags, unbroken))
    seconds, rng, dead = time.monotonic() - began, random.Random(len(more)), 0
    while dead < kills:
        shutil.rmtree(killed, ignore_errors=True) if rng.random() < 0.2 else None
        program = start(tiny_prior_folder, *flags, killed)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(rng.uniform(0.3, 1) * seconds)
        dead += program.poll() is None
        program.kill()
        program.communicate()
        assert program.returncode in (0, -signal.SIGKILL)
        if program.returncode == 0:  # then something is taken away
            run = rng.choice(sorted(killed.glob("*-*")))
            listed = sorted(read_json(run / "manifest.json", files=dict)["files"])
            (run / rng.choice(listed)).unlink()
    end(start(tiny_prior_folder, *flags, killed))
    ours, theirs = results(killed), results(unbroken)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def test_run_after_run_in_one_process_takes_no_more_memory(tiny_prior_folder, tmp_path):
    """Resident memory is flat after the second."""
    text3d = load_script("text3d")

    def resident() -> float:
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 1e6

    held = []
    with in_miniature():
        for i in range(20):
            flags = ["--seeds", "0:2", "--steps", 8, "--out", tmp_path / str(i)]
            assert text3d.main(arguments(tiny_prior_folder, *flags)) == 0
            held.append(resident())
    assert held[-1] - held[1] < 0.1 * held[1], held


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
