"""The command line that a run's config.json stands for."""

import dataclasses
import shlex
from pathlib import Path

import programs
import pytest

from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.export.command import command_line, seeds_text
from dsd_jax.recipe.presets import PRESETS


@pytest.mark.parametrize(
    ("seeds", "text"),
    [([0, 1, 2, 3], "0:4"), ([2, 4, 6], "2:7:2"), ([3], "3"), ([1, 5, 9], "1:10:4"),
     ([4, 5], "4,5"), ([9, 5, 1], "9,5,1"), ([1, 2, 4], "1,2,4")],
)  # fmt: skip
def test_seeds(seeds, text):
    assert seeds_text(seeds) == text and parse_seeds(text) == seeds


def test_a_prompt_s_command_gives_its_configuration_again():
    changes = {"steps": 12, "eta_at": 0.5, "t_min": 1e-3, "negative_prompt": 'it\'s "bad"; rm -rf'}
    settings = dataclasses.replace(PRESETS["quick"], **changes)
    config = {
        "prompt": "a 'red' house & <b>家</b>", "seeds": [0, 2, 4], "method": "sds",
        "prior": "my prior", "preset": "quick", "precision": "bfloat16",
        "settings": dataclasses.asdict(settings) | {"forgotten": 1}, "version": "0.0.1",
    }  # fmt: skip
    python, script, *flags = shlex.split(command_line(config))
    assert (python, script) == ("python", "experiments/text3d.py") and len(flags) == 20
    args = programs.load_script("text3d").parse(flags)
    assert args.prompt == config["prompt"] and args.run.settings == settings
    for name in ("method", "prior", "preset", "precision"):
        assert getattr(args.run, name) == config[name]
    assert parse_seeds(args.run.seeds) == config["seeds"]


def test_a_picture_s_command():
    single_view = programs.load_script("single_view")
    usual = single_view.parse(["--preset", "quick"])
    settings = dataclasses.replace(usual.run.settings, reference_mask=7.0)
    config = {
        "image": "my chair.png", "picture": "1234", "elevation_deg": 20.5, "seeds": [0],
        "method": "dsd", "prior": "toybox-1to3", "preset": "quick", "precision": "float32",
        "settings": dataclasses.asdict(settings),
    }  # fmt: skip
    command = command_line(config)
    assert command == (
        "python experiments/single_view.py --image 'my chair.png' --elevation-deg 20.5 --seeds 0 "
        "--method dsd --prior toybox-1to3 --preset quick --precision float32 --reference-mask 7.0"
    )
    args = single_view.parse(shlex.split(command)[2:])
    assert args.image == Path("my chair.png") and args.run.settings == settings
