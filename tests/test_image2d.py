"""experiments/image2d.py in miniature; how pictures move is tested in tests/studies."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dsd_jax.cli import image2d
from dsd_jax.engine import memory
from dsd_jax.engine.lost import LOST
from dsd_jax.studies import images2d

pytestmark = pytest.mark.usefixtures("quick_compilation")


def run(prior_folder, out, *flags):
    command = ["--prompt", "a red house", "--prior", str(prior_folder), "--out", str(out)]
    return image2d.main([*command, "--steps", "4", "--ddim-steps", "4", *flags])


def test_the_usual_method_with_the_steps_of_ddim_is_ddim(tiny_prior_folder, tmp_path, capsys):
    assert run(tiny_prior_folder, tmp_path, "--seeds", "3,5") == 0
    (folder,) = tmp_path.iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["max_abs_difference_to_ddim"] < 1e-4
    assert metrics["nearest_to_own_ddim"] == 1.0
    printed = float(capsys.readouterr().out.split("max_abs_difference_to_ddim ")[1].split()[0])
    assert printed == pytest.approx(metrics["max_abs_difference_to_ddim"], rel=0.01)
    files = {path.name for path in folder.iterdir()}
    assert files == {"config.json", "metrics.json", "grid.png", "strip.png", "seed_0003.png",
                     "seed_0005.png"}  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["method"] == "dsd-star" and config["recipe"]["steps"] == 4
    with Image.open(folder / "seed_0003.png") as first, Image.open(folder / "seed_0005.png") as b:
        assert first.size == b.size and np.ptp(np.asarray(first)) > 0
        assert (np.asarray(first) != np.asarray(b)).any()


def test_plain_steps_are_ddim_too(tiny_prior_folder, tmp_path):
    """3 steps from T on 4 grid points."""
    flags = ["--method", "dsd-plain", "--steps", "3", "--guidance-scale", "3", "--seeds", "3,5"]
    assert run(tiny_prior_folder, tmp_path, *flags) == 0
    (folder,) = tmp_path.iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["max_abs_difference_to_ddim"] < 1e-4
    assert metrics["nearest_to_own_ddim"] == 1.0


def test_a_picture_that_is_not_finite_is_no_success(
    tiny_prior_folder, tmp_path, capsys, monkeypatch
):
    def way(image, seeds, on_step):
        pictures = jnp.full((2, 16, 16, 3), 0.5).at[0, 1, 2, 0].set(jnp.nan)
        return images2d.Result(pictures, pictures[:, None])

    monkeypatch.setattr(images2d, "way_of", lambda method: way)
    assert run(tiny_prior_folder, tmp_path, "--seeds", "3,5") == LOST
    assert "a red house: seed 3: its picture is not finite" in capsys.readouterr().err
    (folder,) = tmp_path.iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["lost"] == [3] and len(metrics["rms_difference_to_ddim"]) == 1
    assert not (folder / "seed_0003.png").exists() and (folder / "seed_0005.png").exists()

    monkeypatch.setattr(images2d, "finite", lambda images: np.zeros(len(images), bool))
    assert run(tiny_prior_folder, tmp_path, "--seeds", "3,5") == LOST
    assert json.loads((folder / "metrics.json").read_text())["diversity"] is None


@pytest.mark.parametrize(
    ("flags", "method"),
    [
        ([], {"guidance_scale": 5, "anchor": "trajectory", "eta": 0, "ode_points": 11}),
        (["--method", "dsd", "--eta", "0.5"], {"guidance_scale": 5, "eta": 0.5}),
        (["--method", "sds", "--guidance-scale", "20"], {"guidance_scale": 20}),
        (["--method", "vsd", "--method.lora-rate", "0.1"], {"guidance_scale": 5, "lora_rate": 0.1}),
        (
            ["--method", "dsd-plain", "--steps", "9", "--guidance-scale=2"],
            {"anchor": "interpolated", "guidance_scale_prime": 2, "ode_points": 10},
        ),
        (
            ["--method", "dsd-plain", "--ode-points", "11", "--anchor", "trajectory"],
            {"anchor": "trajectory", "guidance_scale_prime": 5, "ode_points": 11},
        ),
    ],
)
def test_the_recipe_of_a_command(flags, method):
    """Numbers of the method, as of everything, are flags; dsd-plain keeps to its ODE by itself."""
    args, recipe = image2d.parse([*flags, "--rate", "0.1", "--t-min", "0.1"])
    assert {name: getattr(recipe.method, name) for name in method} == method
    assert (recipe.optimise.grid_rate, recipe.optimise.t_min) == (0.1, 0.1)
    assert recipe.steps == args.steps and recipe.camera.views == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "sdds"], "--method 'sdds' is not one of asd, cfd, csd, dsd, dsd-plain, "),
        (["--rate", "-1"], "--rate must be a positive, finite number, not -1.0"),
        (["--rate", "nan"], "--rate must be a positive, finite number, not nan"),
        (["--seeds", "4:2"], "is an empty range"),
        (["--prompt", " "], "--prompt is empty"),
        (["--ddim-steps", "1"], "--steps and --ddim-steps must be at least 2"),
        (["--steps", "1000000000"], "and --steps of an ODE, are 100000"),
        (["--method", "dsd-plain", "--steps", "1000000"], "--method.ode-points must be at most"),
        (["--t-min", "0.99"], "--optimise.t-min must be below --optimise.t-max"),
        (["--space", "voxels"], "--space 'voxels' is not one of latents, network, pixels"),
        (
            ["--space", "network"],
            "--method dsd-star moves latents alone, not --space network; take",
        ),
        (["--method", "dsd-plain", "--space", "pixels"], "--method dsd-plain moves latents alone"),
    ],
)
def test_bad_input_gets_one_line(tiny_prior_folder, tmp_path, capsys, flags, message):
    assert run(tiny_prior_folder, tmp_path / "runs", *flags) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_more_seeds_than_memory_holds_at_once(tiny_prior_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "bytes_available", lambda: 2 * 10**9)
    assert run(tiny_prior_folder, tmp_path / "runs", "--seeds", "0:100000") == 2
    said = capsys.readouterr().err
    assert "100000 seeds at once need about " in said and said.count("\n") == 1
    assert not (tmp_path / "runs").exists()
