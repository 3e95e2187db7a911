"""experiments/text3d.py from the command line to the last file, with a prior made in the test."""

import json
import os
import shutil
import signal
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
from programs import EXPERIMENTS, ROOT, SMALL, load_script, signalled

from dsd_jax.cli.job import INTERRUPTED
from dsd_jax.cli.logs import read_log
from dsd_jax.export.scenes import load_scene

AZIMUTHS = ("000", "045", "090", "135", "180", "225", "270", "315")


@pytest.fixture(scope="module")
def text3d(quick_compilation):
    return load_script("text3d")


@pytest.fixture(scope="module")
def house(text3d, tiny_prior_folder, tmp_path_factory):
    """The arguments of a whole run of 12 steps, but for its --out, and the folder it wrote."""
    arguments = ["--prompt", "a red house", "--seeds", "0:2", "--steps", "12", "--prior",
                 str(tiny_prior_folder), "--preview-seconds", "0", *SMALL]  # fmt: skip
    out = tmp_path_factory.mktemp("house")
    arguments += ["--density-floor", "0"]  # in 12 steps nothing grows dense enough for a floor
    assert text3d.main([*arguments, "--mesh", "--out", str(out)]) == 0
    (run,) = out.iterdir()
    return arguments, run


def test_every_file_is_written(house):
    _, run = house
    assert run.name.startswith("a-red-house-")
    written = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    events = {name for name in written if name.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert written - events == {
        "config.json", "metrics.json", "seeds.png", "log.jsonl", "index.html",
    } | {
        f"seed_{seed:04d}/{name}"
        for seed in (0, 1)
        for name in (
            "turntable.mp4", "field.json", "field.safetensors", "mesh.glb", "mesh.json", "mesh.js",
            *(f"views/az{azimuth}.png" for azimuth in AZIMUTHS),
        )
    }  # fmt: skip


def test_pictures_and_metrics_say_what_the_issue_asks_for(house):
    from PIL import Image

    _, run = house
    view = np.asarray(Image.open(run / "seed_0001" / "views" / "az090.png"))
    assert view.shape == (256, 256, 3)
    assert (np.abs(view[0, 0].astype(int) - 204) <= 1).all()
    sheet = np.asarray(Image.open(run / "seeds.png"))
    assert sheet.shape[0] > sheet.shape[1]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["interrupted"] is False
    assert 0 <= metrics["diversity"] <= 2
    assert set(metrics["fidelity"]) == {"category", "accepted", "reason"}
    assert metrics["peak_memory_gb"]["host"] > 0
    parts = ("loading", "optimising", "rendering", "meshes")
    assert sum(metrics["seconds"][part] for part in parts) == pytest.approx(
        metrics["seconds"]["total"], abs=0.5
    )
    assert set(metrics["seeds"]) == {"0", "1"}
    for seed in metrics["seeds"].values():
        assert seed["steps"] == 12
        assert np.isfinite(seed["loss"])
    config = json.loads((run / "config.json").read_text())
    assert config["settings"]["steps"] == 12
    assert config["seeds"] == [0, 1]


def test_fields_can_be_loaded_and_seeds_differ(house):
    _, run = house
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (100, 3)).astype(np.float32)
    fields = [load_scene(run / f"seed_{seed:04d}").field_fn(points) for seed in (0, 1)]
    for density, albedo in fields:
        assert density.shape == (100,)
        assert albedo.shape == (100, 3)
        assert (np.asarray(density) >= 0).all()
    assert not np.allclose(fields[0][0], fields[1][0], atol=1e-3)


def test_ctrl_c_leaves_results_and_resume_ends_as_the_unbroken_run(house, text3d, tmp_path):
    """Ctrl-C after the first block; then --resume; then --resume of a complete run."""
    arguments, unbroken = house
    arguments = [*arguments, "--out", str(tmp_path)]
    with signalled(signal.SIGINT):
        assert text3d.main(arguments) == INTERRUPTED
    run = tmp_path / unbroken.name
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["interrupted"] is True
    assert 1 <= metrics["seeds"]["0"]["steps"] < 12
    assert (run / "seed_0001" / "turntable.mp4").stat().st_size > 0

    assert text3d.main([*arguments, "--resume"]) == 0
    assert not (run / "checkpoints").exists()
    steps = [line["step"] for line in read_log(run / "log.jsonl")]
    assert steps == sorted(set(steps)) and steps[0] == 1 and steps[-1] == 12
    for seed in ("seed_0000", "seed_0001"):
        name = f"{seed}/field.safetensors"
        assert (run / name).read_bytes() == (unbroken / name).read_bytes()

    before = (run / "metrics.json").read_bytes()
    assert text3d.main([*arguments, "--resume"]) == 0
    assert (run / "metrics.json").read_bytes() == before


def test_a_stable_diffusion_folder_without_camera_runs(text3d, tiny_sd, tmp_path):
    """By Perp-Neg; tiny_sd told to make images of 64 pixels, since 512 take a minute."""
    prior, out = tmp_path / "prior", tmp_path / "out"
    shutil.copytree(tiny_sd, prior)
    config = json.loads((prior / "unet" / "config.json").read_text())
    (prior / "unet" / "config.json").write_text(json.dumps(config | {"sample_size": 8}))
    arguments = ["--prompt", "a chair", "--seeds", "3", "--steps", "2", "--prior", str(prior),
                 "--out", str(out), *SMALL]  # fmt: skip
    assert text3d.main(arguments) == 0
    (run,) = out.iterdir()
    assert (run / "seeds.png").stat().st_size > 0
    assert json.loads((run / "config.json").read_text())["settings"]["view_prompts"] == "perp-neg"
    loss = json.loads((run / "metrics.json").read_text())["seeds"]["3"]["loss"]
    assert np.isfinite(loss) and loss > 0


def test_mvdream_runs_with_four_views_from_its_file_and_from_its_port(
    text3d, mvdream_file, mvdream_folder, tmp_path
):
    """Cameras 90 degrees apart, cross-view attention; both hold the same model."""
    arguments = ["--prompt", "a red house", "--seeds", "0", "--steps", "2", "--views", "4",
                 "--out", str(tmp_path), *SMALL]  # fmt: skip
    assert text3d.main([*arguments, "--prior", str(mvdream_file)]) == 0
    (run,) = tmp_path.iterdir()
    assert (run / "seeds.png").stat().st_size > 0
    loss = json.loads((run / "metrics.json").read_text())["seeds"]["0"]["loss"]
    assert np.isfinite(loss) and loss > 0
    ours, theirs = (
        text3d.prepare(text3d.parse([*arguments, "--prior", str(prior)])).task
        for prior in (mvdream_file, mvdream_folder)
    )
    assert theirs.prior.networks == ours.prior.networks and theirs.settings == ours.settings
    chex.assert_trees_all_equal((theirs.prior.params, theirs.text), (ours.prior.params, ours.text))


def test_a_prior_that_takes_an_image_is_refused(text3d, zero123_folder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--prompt", "a house", "--prior", str(zero123_folder), "--out", str(out)]
    assert text3d.main(arguments) == 2
    _one_line(capsys, "takes an image")
    assert not out.exists()


def test_program_on_two_devices_makes_the_same_objects(house, tmp_path):
    """The real program, a device for each of two cores and memory for one seed on each.

    Three seeds then run as two chunks, the last filled up, on other devices and among others than
    in the run in this process.
    """
    arguments, unbroken = house
    planned = json.loads((unbroken / "metrics.json").read_text())["planned_memory_gb"]
    seed = planned["field"] + planned["rendering"] + planned["encoder"] + planned["network"]
    seed += planned["cache"]
    limit = str(planned["prior"] + 1.5 * seed)
    arguments = [*arguments, "--seeds", "0:3", "--max-memory-gb", limit, "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, EXPERIMENTS / "text3d.py", *arguments],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "compiling ..." in " ".join(done.stderr.split())
    (run,) = tmp_path.glob("a-red-house-*")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["devices"] == min(os.cpu_count() or 1, 8)
    assert sorted(path.name for path in run.glob("seed_*")) == [f"seed_000{i}" for i in range(3)]
    for seed in ("seed_0000", "seed_0001"):
        ours, theirs = load_scene(run / seed).params, load_scene(unbroken / seed).params
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--prompt is empty"),
        (["--prompt", "  "], "--prompt is empty"),
        (["--seeds", "4:4"], "empty range"),
        (["--seeds", "-1"], "not negative"),
        (["--seeds", "1,1"], "twice"),
        (["--seeds", "x"], "not a number"),
        (["--method", "dss"], "did you mean"),
        (["--preset", "quik"], "did you mean quick?"),
        (["--prior", "toybx"], "did you mean"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--t-min", "0.99"], "--t-min must be below"),
        (["--fov-deg", "nan"], "--fov-deg"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(text3d, tmp_path, capsys, arguments, said):
    out = tmp_path / "out"
    prompt = [] if said.startswith("--prompt") else ["--prompt", "a house"]
    assert text3d.main([*prompt, *arguments, "--out", str(out)]) == 2
    _one_line(capsys, said)
    assert not out.exists()


def test_out_that_cannot_be_written(text3d, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "runs")
    assert text3d.main(["--prompt", "a house", "--out", out]) == 2
    _one_line(capsys, "cannot be written")


@pytest.mark.parametrize("damage", ["missing", "mismatched"])
def test_prior_with_a_bad_tensor(text3d, tiny_prior_folder, tmp_path, capsys, damage):
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "prior"
    shutil.copytree(tiny_prior_folder, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = "conv_in.weight"
    tensors[name] = tensors[name][..., :1].copy()
    if damage == "missing":
        del tensors[name]
    save_file(tensors, path)
    out = tmp_path / "out"
    arguments = ["--prompt", "a house", "--prior", str(folder), "--out", str(out)]
    assert text3d.main(arguments) == 2
    _one_line(capsys, name)
    assert not out.exists()


def test_unknown_words_are_named(text3d, tiny_prior_folder):
    from dsd_jax.cli import validate

    assert validate.warnings("a red unicorn", tiny_prior_folder) == [
        "the prior has never seen the words: unicorn"
    ]
    assert validate.warnings("a red house", tiny_prior_folder) == []


@pytest.mark.parametrize(
    ("backend", "version", "slow"),
    [("gpu", "0.10.2", True), ("gpu", "0.11.0", True), ("gpu", "0.11.1", False),
     ("gpu", "0.10.1", False), ("cpu", "0.10.2", False)],
)  # fmt: skip
def test_slow_jaxlib_is_named_on_gpus_only(backend, version, slow):
    from dsd_jax.cli import validate

    assert (validate.slow_scatter(backend, version) is not None) == slow


def _one_line(capsys, said):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert said in lines[0]
