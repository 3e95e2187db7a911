"""The command line that a run's config.json stands for."""

import json
import shlex
from pathlib import Path

import pytest

from dsd_jax.cli import single_view, text3d
from dsd_jax.engine.results import recipe_config
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.export.command import command_line, seeds_text
from dsd_jax.files import plain
from dsd_jax.recipe.presets import of_shape, quick, standard
from dsd_jax.recipe.recipe import changed, with_method


@pytest.mark.parametrize(
    ("seeds", "text"),
    [([0, 1, 2, 3], "0:4"), ([2, 4, 6], "2:7:2"), ([3], "3"), ([1, 5, 9], "1:10:4"),
     ([4, 5], "4,5"), ([9, 5, 1], "9,5,1"), ([1, 2, 4], "1,2,4")],
)  # fmt: skip
def test_seeds(seeds, text):
    assert seeds_text(seeds) == text and parse_seeds(text) == seeds


def test_a_prompt_s_command_gives_its_configuration_again():
    recipe = changed(
        with_method(quick, "sds"), steps=12, t_min=1e-3, late_samples=40, guidance_scale=20.0,
        negative_prompt='it\'s "bad"; rm -rf', levels=7,
    )  # fmt: skip
    config = {
        "prompt": "a 'red' house & <b>家</b>", "seeds": [0, 2, 4], "method": "sds",
        "prior": "my prior", "preset": "quick", "precision": "bfloat16",
        "recipe": recipe_config(recipe) | {"forgotten": 1}, "version": "0.0.1",
    }  # fmt: skip
    config = json.loads(json.dumps(config))
    dsd, program, *flags = shlex.split(command_line(config))
    assert (dsd, program) == ("dsd", "text3d") and len(flags) == 24
    args, found = text3d.parse(flags)
    assert args.prompt == config["prompt"] and found == recipe
    for name in ("method", "prior", "preset", "precision"):
        assert getattr(args.run, name) == config[name]
    assert parse_seeds(args.run.seeds) == config["seeds"]


def test_numbers_of_dsd_that_are_none_can_be_typed():
    config = {"prompt": "a", "seeds": [0], "method": "dsd", "preset": "quick"}
    recipe = changed(quick, eta_at=0.5, view_noise="own")
    command = command_line(config | {"recipe": recipe_config(recipe)})
    assert command.endswith("--method.eta-at 0.5 --camera.view-noise own")
    assert text3d.parse(shlex.split(command)[2:])[1] == recipe


def test_a_picture_s_command():
    _, usual = single_view.parse(["--preset", "quick"])
    recipe = changed(usual, **{"reference.mask": 7.0})
    config = {
        "image": "my chair.png", "picture": "1234", "elevation_deg": 20.5, "seeds": [0],
        "method": "dsd", "prior": "toybox-1to3", "preset": "quick", "precision": "float32",
        "recipe": recipe_config(recipe), "given": {"image": "/there/my chair.png"},
    }  # fmt: skip
    command = command_line(config)
    assert command == (
        "dsd single-view --image '/there/my chair.png' --elevation-deg 20.5 --seeds 0 "
        "--method dsd --prior toybox-1to3 --preset quick --precision float32 --reference.mask 7.0"
    )
    args, found = single_view.parse(shlex.split(command)[2:])
    assert args.image == (Path("/there/my chair.png"),) and found == recipe


@pytest.mark.parametrize(
    "prompt", ["-a house", "--house", "a\nhouse", "$(rm) `x` \\\\ !!", "家 'n \"", "-h"]
)
def test_any_prompt_can_be_pasted(prompt):
    config = {"prompt": prompt, "seeds": [0], "method": "dsd", "recipe": recipe_config(standard)}
    flags = shlex.split(command_line(config))[2:]
    args, found = text3d.parse(flags)
    assert args.prompt == prompt and args.run.preset == "standard" and found == standard


def test_a_picture_s_command_runs_in_any_folder(tmp_path, monkeypatch):
    """What `single_view` notes of its files is found again from elsewhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("-house.webp", "mask.png"):
        (tmp_path / name).write_bytes(b"")
    typed = ["--preset", "quick", "--image=-house.webp", "--mask", "mask.png", "--no-recentre"]
    args, recipe = single_view.parse(typed)
    config = {
        "image": "-house.webp", "elevation_deg": -17.300000190734863, "seeds": [0, 1],
        "method": "dsd", "preset": "quick", "prior": "toybox-1to3",
        "recipe": recipe_config(recipe), "given": plain(single_view.given(args)),
    }  # fmt: skip
    flags = shlex.split(command_line(config))[2:]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again, found = single_view.parse(flags)
    assert found == recipe and not again.recentre
    assert [file.is_file() for file in (*again.image, *again.mask)] == [True, True]
    assert again.depth is None
    assert [*map(single_view.elevation_of, again.elevation_deg)] == [config["elevation_deg"]]


def test_the_command_of_several_pictures(tmp_path):
    """Each with its azimuth, in their order."""
    for name in ("front.png", "back.png"):
        (tmp_path / name).write_bytes(b"")
    pictures = [word for name, angle in (("front", "0"), ("back", "-180.5")) for word in (
        "--image", str(tmp_path / f"{name}.png"), f"--image-azimuth={angle}")]  # fmt: skip
    args, recipe = single_view.parse(["--preset", "quick", *pictures])
    config = {
        "image": "front.png", "elevation_deg": 12.0, "elevations_deg": [None], "seeds": [0],
        "method": "dsd", "preset": "quick", "prior": "toybox-1to3",
        "recipe": recipe_config(recipe), "given": plain(single_view.given(args)),
    }  # fmt: skip
    again, found = single_view.parse(shlex.split(command_line(config))[2:])
    assert found == recipe and again.image == args.image and len(again.image) == 2
    assert again.image_azimuth == (0.0, -180.5) and again.elevation_deg == ("12",)


def test_the_command_of_a_given_shape(tmp_path):
    """It names the mesh; the recipe's own numbers are those that were typed."""
    recipe = changed(quick, levels=4)
    config = {
        "prompt": "a chair", "mesh": "c.glb", "shape": "12", "seeds": [0], "preset": "quick",
        "method": "dsd", "recipe": recipe_config(of_shape(recipe)),
        "given": {"retexture": "/there/c.glb", "up": "z", "turn_deg": -90.0},
    }  # fmt: skip
    args, found = text3d.parse(shlex.split(command_line(json.loads(json.dumps(config))))[2:])
    assert str(args.retexture) == "/there/c.glb" and (args.up, args.turn_deg) == ("z", -90.0)
    assert of_shape(found) == of_shape(recipe)
    assert command_line(config | {"given": {}}) == ""


@pytest.mark.parametrize(
    "change",
    [{"image": "of a library's run"}, {"prompt": "a", "method": "mine"},
     {"prompt": "a", "prior": "MyPrior"},
     {"prompt": "a", "recipe": {"field": {"kind": "MyField"}}}],
)  # fmt: skip
def test_what_no_command_makes_again_has_none(change):
    assert command_line({"seeds": [0], "recipe": {}, "elevation_deg": 1.0} | change) == ""
