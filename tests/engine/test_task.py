"""What is to be made."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.distillation import NFSD
from dsd_jax.engine.task import make_task, picture_task, precision_of, prior_name
from dsd_jax.priors import load_prior
from dsd_jax.recipe import elevation
from dsd_jax.recipe.input_picture import InputPicture
from dsd_jax.recipe.presets import of_picture
from dsd_jax.recipe.recipe import changed, with_method

RGB, MASK = np.full((20, 20, 3), 0.5, np.float32), np.ones((20, 20), np.float32)
PICTURE = InputPicture(RGB, MASK, None, None, [])


@pytest.fixture(scope="module")
def of_pictures(zero123_folder):
    return load_prior(zero123_folder)


def test_a_prompt_s_task_is_told_once_and_keeps_what_the_steps_need(tiny_prior_folder, recipe):
    prior = load_prior(tiny_prior_folder)
    task = make_task(prior, "a red house", changed(recipe, negative_prompt="red"))
    expected = prior.condition("a red house", negative_prompt="red")
    jax.tree.map(np.testing.assert_array_equal, task.condition, expected)
    assert task.told == "a red house" and task.negative is task.reference is None
    assert task.prior.params.keys() == {"unet", "vae"}
    assert task.shared.prior is task.prior.params and task.shared.condition is task.condition


def test_nfsd_is_told_what_is_bad_as_well(tiny_prior_folder, recipe):
    prior = load_prior(tiny_prior_folder)
    task = make_task(prior, "a house", dataclasses.replace(recipe, method=NFSD(bad_text="a red")))
    expected = prior.condition("a red", view_prompts="none")
    jax.tree.map(np.testing.assert_array_equal, task.negative, expected)


def test_a_picture_s_task(of_pictures, recipe):
    depth = np.arange(400, dtype=np.float32).reshape(20, 20)
    picture = InputPicture(RGB, MASK, depth, None, [], "chair", 30.0)
    task = picture_task(of_pictures, picture, of_picture(recipe))
    assert task.told == "chair" and task.negative is None
    np.testing.assert_allclose(task.condition.elevation, np.pi / 6, rtol=1e-6)
    assert task.reference.elevation == task.condition.elevation
    assert task.reference.elevation_deg == 30
    np.testing.assert_array_equal(task.reference.rgb, RGB)
    np.testing.assert_array_equal(task.reference.depth, depth)
    assert task.reference.normal is None
    assert "image_encoder" not in task.prior.params


@pytest.mark.parametrize(
    ("given", "estimated", "expected", "said"),
    [
        (35.0, None, 35.0, ""),
        (None, 25.0, 25.0, "elevation of the picture: 25 degrees, as estimated; "),
        (None, None, 20.0, "elevation of the picture: 20 degrees, as usual: this prior cannot "),
    ],
    ids=["given", "estimated", "usual"],
)
def test_an_elevation_that_is_not_given_is_estimated_and_said(
    of_pictures, recipe, monkeypatch, capsys, given, estimated, expected, said
):
    monkeypatch.setattr(elevation, "estimate", lambda *args: estimated)
    task = make_task(of_pictures, PICTURE._replace(elevation_deg=given), of_picture(recipe))
    assert task.reference.elevation_deg == expected
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(said) and all(line.startswith(said) for line in lines)
    assert all(line.endswith("; --elevation-deg sets it") for line in lines)


def test_what_does_not_go_with_a_picture_is_refused(of_pictures, tiny_prior_folder, recipe):
    told = partial(picture_task, of_pictures, PICTURE)
    with pytest.raises(ValueError, match="method NFSD needs a prompt for bad pictures, "):
        told(with_method(of_picture(recipe), "nfsd"))
    message = "^the background of a picture is plain: --render.background grey or white, not colour"
    with pytest.raises(ValueError, match=message):
        told(changed(recipe, background="colour"))
    with pytest.raises(ValueError, match="takes a prompt and not a picture"):
        picture_task(load_prior(tiny_prior_folder), PICTURE, of_picture(recipe))
    with pytest.raises(ValueError, match="takes an image and not a prompt"):
        make_task(of_pictures, "a chair", recipe)


def test_names(prior, task, tiny_prior_folder):
    assert prior_name(prior) == prior_name(task.prior) == "FlatColours"
    assert precision_of(task.prior) == "float32"
    half = load_prior(tiny_prior_folder, jnp.bfloat16)
    assert prior_name(half) == str(tiny_prior_folder) and precision_of(half) == "bfloat16"
