"""The command that makes a run again, from its config.json."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dsd_jax.engine import single_view
from dsd_jax.recipe.presets import PRESETS, Settings


def command_line(config: Mapping[str, Any]) -> str:
    """`python experiments/text3d.py ...` for a POSIX shell, with what is not the preset's own.

    For a run of a picture it is single_view.py, and the picture's folder is not known.

    Args:
        config: what config.json holds; settings that are no longer known are left out.
    """
    if "prompt" in config:
        presets, words = PRESETS, ["text3d.py", "--prompt", config["prompt"]]
    else:
        presets, words = single_view.PRESETS, ["single_view.py", "--image", config["image"]]
        words += ["--elevation-deg", f"{config['elevation_deg']:g}"]
    words += ["--seeds", seeds_text(config["seeds"])]
    for name in ("method", "prior", "preset", "precision"):
        if name in config:
            words += [f"--{name}", config[name]]
    usual = dataclasses.asdict(presets.get(config["preset"], Settings()))
    for name, value in config["settings"].items():
        if name in usual and value != usual[name]:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return f"python experiments/{shlex.join(words)}"


def seeds_text(seeds: Sequence[int]) -> str:
    """The shortest of what `parse_seeds` reads: 0:4, 0:16:2 or 1,5,9."""
    if len(seeds) > 2:
        step = seeds[1] - seeds[0]
        if step > 0 and list(seeds) == list(range(seeds[0], seeds[-1] + 1, step)):
            return f"{seeds[0]}:{seeds[-1] + 1}" + (f":{step}" if step > 1 else "")
    return ",".join(map(str, seeds))
