"""experiments/image2d.py in miniature."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from programs import load_script

from dsd_jax.distillation import METHODS
from dsd_jax.priors import load_prior
from dsd_jax.recipe.presets import Settings
from dsd_jax.studies import images2d


@pytest.fixture(scope="module")
def image2d(quick_compilation):
    return load_script("image2d")


@pytest.fixture(scope="module")
def prior(tiny_prior_folder, quick_compilation):
    return load_prior(str(tiny_prior_folder), jnp.float32)


def task(prior, method="dsd", space="latents", **changes):
    settings = Settings(**{"steps": 3, "views": 1, "eta": 0.0, "grid_rate": 0.05} | changes)
    return images2d.make_task(prior, "a red house", METHODS[method], settings, 0.5, 0.2, space)


def run(image2d, prior_folder, out, *flags):
    command = ["--prompt", "a red house", "--prior", str(prior_folder), "--out", str(out)]
    return image2d.main([*command, "--steps", "4", "--ddim-steps", "4", *flags])


def test_dsd_with_the_steps_of_ddim_is_ddim(image2d, tiny_prior_folder, tmp_path, capsys):
    assert run(image2d, tiny_prior_folder, tmp_path, "--seeds", "3,5") == 0
    (folder,) = tmp_path.iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["max_abs_difference_to_ddim"] < 1e-4
    assert metrics["nearest_to_own_ddim"] == 1.0
    printed = float(capsys.readouterr().out.split("max_abs_difference_to_ddim ")[1].split()[0])
    assert printed == pytest.approx(metrics["max_abs_difference_to_ddim"], rel=0.01)
    files = {path.name for path in folder.iterdir()}
    assert files == {"config.json", "metrics.json", "grid.png", "strip.png", "seed_0003.png",
                     "seed_0005.png"}  # fmt: skip
    with Image.open(folder / "seed_0003.png") as first, Image.open(folder / "seed_0005.png") as b:
        assert first.size == b.size and np.ptp(np.asarray(first)) > 0
        assert (np.asarray(first) != np.asarray(b)).any()


def test_plain_descent_is_ddim_if_the_simulated_ode_has_its_grid(
    image2d, tiny_prior_folder, tmp_path
):
    """3 steps from T on 4 grid points."""
    flags = ["--descent", "plain", "--steps", "3", "--ode-points", "4", "--seeds", "3,5"]
    assert run(image2d, tiny_prior_folder, tmp_path, *flags) == 0
    (folder,) = tmp_path.iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["max_abs_difference_to_ddim"] < 1e-4
    assert metrics["nearest_to_own_ddim"] == 1.0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--method", "sdds"],
            "--method 'sdds' is not one of asd, cfd, csd, dsd, fsd, ism, nfsd, sdi, sds, vsd",
        ),
        (["--seeds", "4:2"], "is an empty range"),
        (["--prompt", " "], "--prompt is empty"),
        (["--ddim-steps", "1"], "--steps and --ddim-steps must be at least 2"),
        (["--t-min", "0.99"], "--t-min must be below --t-max"),
        (["--descent", "plain", "--space", "pixels"], "--descent plain moves latents alone"),
        (["--descent", "ode", "--space", "network"], "--descent ode moves latents alone"),
        (["--descent", "ode", "--method", "sds"], "--descent ode is for --method dsd alone"),
    ],
)
def test_bad_input_gets_one_line(image2d, tiny_prior_folder, tmp_path, capsys, flags, message):
    assert run(image2d, tiny_prior_folder, tmp_path / "runs", *flags) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("space", images2d.SPACES)
def test_every_space_moves_towards_the_prior(prior, space):
    """Down the gradient of SDS the pictures change, each seed by itself."""
    found = images2d.optimise(task(prior, "sds", space), [0, 1])
    assert found.strip.shape[:2] == (2, 3) and found.images.shape[0] == 2
    np.testing.assert_array_equal(found.strip[:, -1], found.images)
    assert np.abs(found.strip[:, 0] - found.images).max() > 1e-4
    alone = images2d.optimise(task(prior, "sds", space), [1])
    np.testing.assert_allclose(found.images[1], alone.images[0], atol=2e-3)


@pytest.mark.parametrize(("method", "changes"), [("nfsd", {"nfsd_prompt": "a house"}),
                                                 ("asd", {"lora_rate": 0.1})])  # fmt: skip
def test_methods_get_what_they_ask_for(prior, method, changes):
    """NFSD a prompt of its own, ASD (and so VSD) a network of each seed and the prior's text."""
    found = images2d.optimise(task(prior, method, steps=2, **changes), [0, 1])
    assert np.isfinite(found.images).all() and np.ptp(found.images[0] - found.images[1]) > 0


@pytest.mark.parametrize("space", ["pixels", "network"])
def test_plain_descent_of_an_image_is_refused(prior, space):
    with pytest.raises(ValueError, match=f"moves latents alone, not --space {space}"):
        images2d.descend(task(prior, space=space), [0])


def test_an_unknown_space_is_refused(prior):
    with pytest.raises(ValueError, match="--space 'voxels' is not one of latents, pixels, network"):
        task(prior, space="voxels")


@pytest.mark.parametrize(("steps", "kept"), [(1, {0}), (3, {0, 1, 2}), (16, set(range(1, 16, 2)))])
def test_the_strip_is_spread_evenly_and_ends_with_the_last_step(steps, kept):
    assert images2d._strip(steps) == kept
