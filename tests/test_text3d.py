"""text3d.py from the command line to the last file, with a prior made in the test."""

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import chex
import jax
import numpy as np
import pytest
from orbax.checkpoint import CheckpointManager
from programs import (
    EXPERIMENTS,
    ROOT,
    SMALL,
    arguments,
    end,
    files_of,
    free_port,
    in_miniature,
    load_script,
    signalled,
    start,
    wait_for,
)

from dsd_jax.cli import job, lock, logs
from dsd_jax.cli.logs import read_log
from dsd_jax.cli.program import BAD_INPUT, FAILED, INTERRUPTED
from dsd_jax.engine import results
from dsd_jax.export import manifest
from dsd_jax.export.scenes import load_scene

AZIMUTHS = ("000", "045", "090", "135", "180", "225", "270", "315")
STEPS = 12
FLAGS = ["--seeds", "0:2", "--steps", STEPS, "--preview-seconds", "0"]


class House(NamedTuple):
    """A whole run: its arguments but for --out, the folder it wrote, and what it said and showed.

    Attributes:
        shown: the seeds and the port of the viewer, (seeds, step) of each block, and "closed".
    """

    arguments: list[str]
    run: Path
    said: str
    shown: list


@pytest.fixture(scope="module")
def text3d(quick_compilation):
    with in_miniature():
        yield load_script("text3d")


@pytest.fixture(scope="module")
def house(text3d, tiny_prior_folder, tmp_path_factory) -> House:
    command, said, shown = arguments(tiny_prior_folder, *FLAGS), io.StringIO(), []
    out = tmp_path_factory.mktemp("house")

    @contextlib.contextmanager
    def show_growing(seeds, recipe, port, say):
        shown.append((seeds, port))
        yield lambda chunk, progress: shown.append((chunk, progress.done))
        shown.append("closed")

    more = ["--mesh", "--viewer", "--port", str(free_port()), "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setitem(sys.modules, "viser", object())  # as if it were installed
        patch.setattr(job, "show_growing", show_growing)
        assert text3d.main([*command, *more]) == 0
    (run,) = out.iterdir()
    return House(command, run, said.getvalue(), shown)


def test_every_file_is_written(house):
    run = house.run
    assert run.name.startswith("a-red-house-")
    written = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    events = {name for name in written if name.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert written - events == {
        "config.json", "metrics.json", "seeds.png", "clay.png", "log.jsonl", "index.html",
        "manifest.json",
    } | {
        f"seed_{seed:04d}/{name}"
        for seed in (0, 1)
        for name in (
            "turntable.mp4", "field.json", "field.safetensors", "mesh.glb", "mesh.json", "mesh.js",
            *(f"{kind}/az{azimuth}.png" for kind in ("views", "clay") for azimuth in AZIMUTHS),
        )
    }  # fmt: skip


def test_pictures_and_metrics_say_what_the_issue_asks_for(house):
    from PIL import Image

    run = house.run
    view = np.asarray(Image.open(run / "seed_0001" / "views" / "az090.png"))
    assert view.shape == (256, 256, 3)
    assert (np.abs(view[0, 0].astype(int) - 204) <= 1).all()
    sheet = np.asarray(Image.open(run / "seeds.png"))
    assert sheet.shape[0] > sheet.shape[1]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["interrupted"] is False
    assert 0 <= metrics["diversity"] <= 2
    assert set(metrics["fidelity"]) == {"category", "accepted", "fidelity", "reason"}
    assert {"grain", "holes"} <= set(metrics) and 0 <= metrics["mesh_iou"] <= 1
    assert metrics["geometry"]["bump"] > 0 and metrics["seeds"]["1"]["geometry"]["parts"] >= 1
    assert metrics["peak_memory_gb"]["host"] > 0
    assert metrics["planned_memory_gb"]["cache"] > 0
    parts = ("loading", "optimising", "rendering", "meshes")
    between = metrics["seconds"]["total"] - sum(metrics["seconds"][part] for part in parts)
    assert -0.2 <= between < 5
    assert set(metrics["seeds"]) == {"0", "1"}
    for seed in metrics["seeds"].values():
        assert seed["steps"] == STEPS
        assert np.isfinite(seed["loss"])
        assert 0 < seed["ode_error"] < 1
    config = json.loads((run / "config.json").read_text())
    assert config["recipe"]["steps"] == STEPS
    assert config["seeds"] == [0, 1]


def test_fields_can_be_loaded_and_seeds_differ(house):
    run = house.run
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (100, 3)).astype(np.float32)
    fields = [load_scene(run / f"seed_{seed:04d}").field_fn(points) for seed in (0, 1)]
    for density, albedo in fields:
        assert density.shape == (100,)
        assert albedo.shape == (100, 3)
        assert (np.asarray(density) >= 0).all()
    assert not np.allclose(fields[0][0], fields[1][0], atol=1e-3)


def test_a_redirected_run_says_how_far_it_is_in_plain_lines(house):
    lines = house.said.splitlines()
    assert house.said.isprintable() or not {*house.said} & {"\x1b", "\r", "\b"}
    assert f"{house.run}: 2 seeds" in lines[0] and lines[0].endswith("compiling ...")
    (last,) = [line for line in lines if line.startswith(f"optimising: {STEPS} of {STEPS}, loss ")]
    assert " it/s, " in last and last.endswith(" s")
    assert any(line.startswith("rendering: 10 of 10, ") for line in lines)
    assert lines[-1] == f"gallery: {house.run / 'index.html'}"


def test_the_viewer_is_shown_every_block(house):
    (seeds, port), *blocks, last = house.shown
    assert seeds == [0, 1] and port > 0 and last == "closed"
    assert all(chunk == seeds for chunk, _ in blocks)
    assert [blocks[0][1], blocks[-1][1]] == [1, STEPS]


def test_of_several_prompts_those_that_are_not_complete_are_made(
    house, text3d, tiny_prior_folder, tmp_path, capsys
):
    """The overview shows all."""
    done, prompts = tmp_path / house.run.name, ["a red house", "red"]
    shutil.copytree(house.run, done)
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    command = arguments(tiny_prior_folder, "--prompts", *prompts, *FLAGS, "--out", tmp_path)
    assert text3d.main(command) == 0
    said = capsys.readouterr()
    assert f"{done} is complete: nothing to resume" in said.out
    assert "2 of 2 are complete\n" in said.err
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == before
    rows = json.loads((tmp_path / "overview.json").read_text())["runs"]
    assert [row["title"] for row in rows] == prompts
    metrics = [json.loads((tmp_path / row["folder"] / "metrics.json").read_text()) for row in rows]
    for row, own in zip(rows, metrics, strict=True):
        assert row["state"] == "complete" and row["seeds"] == [0, 1]
        assert row["diversity"] == own["diversity"]
    assert metrics[0]["seeds"]["0"]["loss"] != metrics[1]["seeds"]["0"]["loss"]
    page = (tmp_path / "overview.html").read_text()
    assert page.count("<section") == 2 and page.count("<video") == 4
    for link in (f"{done.name}/seed_0001/turntable.mp4", f"{done.name}/seed_0000/views/az045.png"):
        assert f'"{link}"' in page and (tmp_path / link).is_file()


@pytest.fixture
def again(house, text3d, tmp_path):
    """(what is done to a copy of the run) -> after the same command, the copy."""

    def run(damage):
        copy = tmp_path / house.run.name
        shutil.copytree(house.run, copy)
        damage(copy)
        assert text3d.main([*house.arguments, "--mesh", "--out", str(tmp_path)]) == 0
        assert manifest.faults(copy) == []
        return copy

    return run


def test_a_page_that_is_missing_is_written_again_without_a_step(house, again, capsys):
    copy = again(lambda run: (run / "index.html").unlink())
    assert "is complete" in capsys.readouterr().out
    assert (copy / "index.html").read_bytes() == (house.run / "index.html").read_bytes()


def contents(run: Path) -> dict[str, object]:
    """Every result of a run; of metrics.json what is no time and no memory."""
    found: dict[str, object] = {
        name: (run / name).read_bytes() for name in manifest.listed(run) if name != "index.html"
    }
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("seconds", "peak_memory_gb", "iterations_per_second"):
        del metrics[name]
    return found | {"metrics.json": metrics}


DAMAGE = {
    "meshes": ["seed_0000/clay/az000.png", "seed_0001/mesh.glb", "seed_0001/mesh.json", "clay.png",
               "config.json", "index.html"],
    "pictures": ["seed_0000/views/az045.png", "seed_0001/turntable.mp4", "seeds.png"],
    "metrics": ["metrics.json", "log.jsonl"],
    "list": ["manifest.json", "metrics.json", "config.json", "seed_0000/turntable.mp4"],
}  # fmt: skip


@pytest.mark.parametrize("names", DAMAGE.values(), ids=DAMAGE)
def test_small_results_are_made_again_of_the_fields(house, again, monkeypatch, names):
    """Without a step, whether they are missing or damaged; they are what they were."""

    def damage(run):
        for i, name in enumerate(names):
            (run / name).unlink() if i % 2 else (run / name).write_text("null")

    monkeypatch.setattr(job, "optimise", None)
    copy = again(damage)
    assert contents(copy) == contents(house.run)


def test_meshes_are_made_where_they_were_left_out(house, again, monkeypatch):
    def damage(run):
        for path in [*run.glob("seed_*/mesh.*"), *run.glob("seed_*/clay/*"), run / "clay.png"]:
            path.unlink()
        manifest.write_manifest(run)

    monkeypatch.setattr(job, "optimise", None)
    copy = again(damage)
    assert contents(copy) == contents(house.run)


def test_what_is_missing_or_damaged_is_made_again(house, again):
    """And no file of the run, whatever is in it, ends the program; what a killed one left goes."""
    swept = f"seed_0000/.{'0af3' * 8}.mp4"

    def damage(run):
        shutil.rmtree(run / "seed_0001")
        os.truncate(run / "seed_0000" / "field.safetensors", 99)
        (run / swept).write_bytes(b"half")
        (run / "config.json").write_text("null")
        (run / "log.jsonl").write_text('null\n{"step": 1}\n[]\n\xff{')

    copy = again(damage)
    assert files_of(copy.parent) == files_of(house.run.parent)
    assert not (copy / swept).exists()


def test_a_run_at_which_another_process_is_at_work_is_left_alone(
    house, text3d, tmp_path, capsys, monkeypatch
):
    copy = tmp_path / house.run.name
    shutil.copytree(house.run, copy)
    (copy / "metrics.json").unlink()
    command = [*house.arguments, "--out", str(tmp_path)]
    with lock.held(copy):
        assert text3d.main(command) == BAD_INPUT
        _one_line(capsys, f"error: process {os.getpid()} on ")
        monkeypatch.setattr(lock, "refuse_held", lambda folder: None)  # it came a moment later
        assert text3d.main(command) == BAD_INPUT
        assert "is at work in" in capsys.readouterr().err
    assert not (copy / "metrics.json").exists()


def test_ctrl_c_while_results_are_written_says_that_they_are_not(
    house, text3d, tmp_path, capsys, monkeypatch
):
    def save_video(*given):
        raise KeyboardInterrupt

    command = [*house.arguments, "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(results, "save_video", save_video)
        assert text3d.main(command) == INTERRUPTED
    said = capsys.readouterr().err
    assert said.endswith("stopped: not all results are written; the same command writes them\n")
    assert text3d.main(command) == 0
    assert files_of(tmp_path) == files_of(house.run.parent)


def test_a_full_or_read_only_disk_is_one_line_and_the_checkpoints_before_stay(
    house, text3d, tmp_path, capsys, monkeypatch
):
    """For pictures, then for the log, then for checkpoints from the third on; or read-only."""

    def fails(number):
        def fail(*given, **named):
            raise OSError(number, os.strerror(number), str(tmp_path / "file"))

        return fail

    full, read_only = fails(errno.ENOSPC), fails(errno.EROFS)

    def save(manager, step, real=CheckpointManager.save, **given):
        return full() if step > 2 else real(manager, step, **given)

    command = [*house.arguments, "--out", str(tmp_path)]
    mend = "the same command goes on from the last checkpoint that could be written"
    for place, name, stand_in, reason in (
        (CheckpointManager, "save", save, errno.ENOSPC), (logs, "plain", read_only, errno.EROFS),
        (results, "save_png", full, errno.ENOSPC), (results, "save_video", read_only, errno.EROFS),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(place, name, stand_in)
            assert text3d.main(command) == FAILED
        errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        (line,) = errors
        assert line.startswith("error: ") and f"{os.strerror(reason)}; {mend}" in line
        assert list(tmp_path.glob("*/checkpoints/*/[0-9]*"))
    assert text3d.main(command) == 0
    assert files_of(tmp_path) == files_of(house.run.parent)


def test_killed_and_then_stopped_it_ends_as_the_unbroken_run(
    house, text3d, tiny_prior_folder, tmp_path
):
    """By SIGKILL while a checkpoint is written; by Ctrl-C the next time."""
    program = start(tiny_prior_folder, *FLAGS, "--out", tmp_path)
    wait_for(program, lambda: any(tmp_path.glob("*/checkpoints/*/2*")))
    program.kill()
    end(program, -signal.SIGKILL)
    run, command = tmp_path / house.run.name, [*house.arguments, "--out", str(tmp_path)]
    assert not (run / "metrics.json").exists()

    with signalled(signal.SIGINT):
        assert text3d.main(command) == INTERRUPTED
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["interrupted"] is True
    assert 1 < metrics["seeds"]["0"]["steps"] < STEPS
    assert (run / "seed_0001" / "turntable.mp4").stat().st_size > 0

    assert text3d.main(command) == 0
    assert files_of(tmp_path) == files_of(house.run.parent)
    assert len(files_of(tmp_path)) == 2 * (2 + 8) + 1
    assert not (run / "checkpoints").exists()
    steps = [line["step"] for line in read_log(run / "log.jsonl")]
    assert steps == sorted(set(steps)) and steps[0] == 1 and steps[-1] == STEPS


def test_another_configuration_is_refused_with_the_difference(house, text3d, capsys):
    same = [*house.arguments, "--out", str(house.run)]
    assert text3d.main([*same, "--steps", "9", "--anchor", "interpolated"]) == BAD_INPUT
    said = _one_line(capsys, f"error: {house.run} holds a run with --steps {STEPS}, not 9, ")
    assert "--method.anchor 'trajectory', not 'interpolated'; give the same flags, or" in said
    assert text3d.main([*same, "--method", "sds"]) == BAD_INPUT
    assert _one_line(capsys, "holds a run with --method 'dsd', not 'sds'; give the same")


@pytest.mark.slow
def test_a_stable_diffusion_folder_without_camera_runs(text3d, tiny_sd, tmp_path):
    """By Perp-Neg; tiny_sd told to make images of 64 pixels, since 512 take a minute."""
    prior, out = tmp_path / "prior", tmp_path / "out"
    shutil.copytree(tiny_sd, prior)
    config = json.loads((prior / "unet" / "config.json").read_text())
    (prior / "unet" / "config.json").write_text(json.dumps(config | {"sample_size": 8}))
    command = ["--prompt", "a chair", "--seeds", "3", "--steps", "2", "--prior", str(prior),
               "--out", str(out), *SMALL]  # fmt: skip
    assert text3d.main(command) == 0
    (run,) = out.iterdir()
    assert (run / "seeds.png").stat().st_size > 0
    told = json.loads((run / "config.json").read_text())["recipe"]["condition"]
    assert told["view_prompts"] == "perp-neg"
    loss = json.loads((run / "metrics.json").read_text())["seeds"]["3"]["loss"]
    assert np.isfinite(loss) and loss > 0


@pytest.mark.slow
def test_mvdream_runs_with_four_views_from_its_file_and_from_its_port(
    text3d, mvdream_file, mvdream_folder, tmp_path
):
    """Cameras 90 degrees apart, cross-view attention; both hold the same model."""
    command = ["--prompt", "a red house", "--seeds", "0", "--steps", "2", "--views", "4",
               "--out", str(tmp_path), *SMALL]  # fmt: skip
    assert text3d.main([*command, "--prior", str(mvdream_file)]) == 0
    (run,) = tmp_path.iterdir()
    assert (run / "seeds.png").stat().st_size > 0
    loss = json.loads((run / "metrics.json").read_text())["seeds"]["0"]["loss"]
    assert np.isfinite(loss) and loss > 0
    ours, theirs = (
        text3d.prepare(*text3d.parse([*command, "--prior", str(prior)])).task
        for prior in (mvdream_file, mvdream_folder)
    )
    assert theirs.prior.networks == ours.prior.networks and theirs.recipe == ours.recipe
    chex.assert_trees_all_equal(
        (theirs.prior.params, theirs.condition), (ours.prior.params, ours.condition)
    )


@pytest.mark.slow
def test_program_on_two_devices_makes_the_same_objects(house, tmp_path):
    """The real program, a device for each of two cores and memory for one seed on each.

    Three seeds then run as two chunks, the last filled up, on other devices and among others than
    in the run in this process.
    """
    planned = json.loads((house.run / "metrics.json").read_text())["planned_memory_gb"]
    seed = planned["field"] + planned["rendering"] + planned["encoder"] + planned["network"]
    seed += planned["cache"]
    devices = min(os.cpu_count() or 1, 8)
    limit = str(planned["program"] + devices * (planned["prior"] + 1.5 * seed))
    command = [*house.arguments, "--seeds", "0:3", "--max-memory-gb", limit, "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, EXPERIMENTS / "text3d.py", *command],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "compiling ..." in " ".join(done.stderr.split())
    (run,) = tmp_path.glob("a-red-house-*")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["devices"] == devices
    assert sorted(path.name for path in run.glob("seed_*")) == [f"seed_000{i}" for i in range(3)]
    for seed in ("seed_0000", "seed_0001"):
        ours, theirs = load_scene(run / seed).params, load_scene(house.run / seed).params
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


def _one_line(capsys, said) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    return line
