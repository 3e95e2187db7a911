"""The command that makes a run again, from its config.json."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dsd_jax.distillation import METHODS
from dsd_jax.recipe.parts import flag
from dsd_jax.recipe.presets import PRESETS, of_picture
from dsd_jax.recipe.recipe import numbers, with_method


def command_line(config: Mapping[str, Any]) -> str:
    """`python experiments/text3d.py ...` for a POSIX shell, with what is not the preset's own.

    For a run of a picture it is single_view.py, and the picture's folder is not known.

    Args:
        config: what config.json holds; numbers that are no longer known are left out.
    """
    preset, method = config.get("preset") or "standard", config.get("method", "dsd")
    usual = PRESETS.get(preset, PRESETS["standard"])
    if "prompt" in config:
        words = ["text3d.py", "--prompt", config["prompt"]]
    else:
        usual, words = of_picture(usual), ["single_view.py", "--image", config["image"]]
        words += ["--elevation-deg", f"{config['elevation_deg']:g}"]
    words += ["--seeds", seeds_text(config["seeds"])]
    for name in ("method", "prior", "pose", "preset", "precision"):
        if name in config:
            words += [f"--{name}", config[name]]
    if method in METHODS:
        usual = with_method(usual, method)
    for part, name, value in numbers(usual):
        own = config["recipe"].get(part, {}) if part else config["recipe"]
        if name in own and own[name] != value:
            words += [f"--{flag(part, name)}" if part else f"--{name}", str(own[name])]
    return f"python experiments/{shlex.join(words)}"


def seeds_text(seeds: Sequence[int]) -> str:
    """The shortest of what `parse_seeds` reads: 0:4, 0:16:2 or 1,5,9."""
    if len(seeds) > 2:
        step = seeds[1] - seeds[0]
        if step > 0 and list(seeds) == list(range(seeds[0], seeds[-1] + 1, step)):
            return f"{seeds[0]}:{seeds[-1] + 1}" + (f":{step}" if step > 1 else "")
    return ",".join(map(str, seeds))
