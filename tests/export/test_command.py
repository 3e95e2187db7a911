"""The command line that a run's config.json stands for."""

import json
import shlex
from pathlib import Path

import pytest

from dsd_jax.cli import single_view, text3d
from dsd_jax.engine.results import recipe_config
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.export.command import command_line, seeds_text
from dsd_jax.recipe.presets import quick
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
    python, script, *flags = shlex.split(command_line(config))
    assert (python, script) == ("python", "experiments/text3d.py") and len(flags) == 24
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
        "recipe": recipe_config(recipe),
    }  # fmt: skip
    command = command_line(config)
    assert command == (
        "python experiments/single_view.py --image 'my chair.png' --elevation-deg 20.5 --seeds 0 "
        "--method dsd --prior toybox-1to3 --preset quick --precision float32 --reference.mask 7.0"
    )
    args, found = single_view.parse(shlex.split(command)[2:])
    assert args.image == Path("my chair.png") and found == recipe
