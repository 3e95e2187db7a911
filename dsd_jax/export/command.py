"""The command that makes a run again, from its config.json."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dsd_jax.checks import flag
from dsd_jax.distillation import METHODS
from dsd_jax.priors import EMBEDDED
from dsd_jax.recipe.presets import PRESETS, of_picture, of_shape
from dsd_jax.recipe.recipe import numbers, with_method


def command_line(config: Mapping[str, Any]) -> str:
    """`dsd text3d ...` for a POSIX shell in any folder, with what is not the preset's own.

    For a run of a picture it is `dsd single-view`. It is "" where no command makes the run again:
    its method, prior or field is of your own, or where its picture is was never told.

    Args:
        config: what config.json holds; numbers that are no longer known are left out. `given` says
            where the files are that the command line named.
    """
    preset, method = config.get("preset") or "standard", config.get("method", "dsd")
    given, recipe = config.get("given") or {}, config["recipe"]
    retextured = "shape" in config
    if retextured:
        recipe = {**recipe, "field": _flat(recipe["field"]["base"])}
    prior = given.get("prior", config.get("prior", "toybox"))
    own_prior = prior.isidentifier() and prior not in EMBEDDED  # named by its class
    own_field = recipe.get("field", {}).get("kind", "hash_grid") != "hash_grid"
    told = "image" in given or ("prompt" in config and (not retextured or "retexture" in given))
    if method not in METHODS or own_prior or own_field or not told:
        return ""
    usual = PRESETS.get(preset, PRESETS["standard"])
    if "prompt" in config:
        words = ["text3d", *_flag("prompt", config["prompt"])]
        for name in ("retexture", "up", "turn_deg"):
            words += _flag(name.replace("_", "-"), given[name]) if name in given else []
    else:
        usual, words = of_picture(usual), ["single-view"]
        for name in ("image", "image_azimuth", "mask", "depth", "normal"):
            each = given.get(name, [])
            for value in each if isinstance(each, list) else [each]:
                words += _flag(name.replace("_", "-"), value)
        words += [] if given.get("recentre", True) else ["--no-recentre"]
        high = config.get("elevations_deg", [None])
        for angle in high if None not in high else [config["elevation_deg"]]:
            words += _flag("elevation-deg", str(angle).removesuffix(".0"))
    words += ["--seeds", seeds_text(config["seeds"])]
    known = {**config, "preset": preset, **given}
    for name in ("method", "prior", "pose", "preset", "precision"):
        words += _flag(name, known[name]) if name in known else []
    if retextured:
        usual = dataclasses.replace(of_shape(usual), field=usual.field)
    usual = with_method(usual, method)
    for part, name, value in numbers(usual):
        own = recipe.get(part, {}) if part else recipe
        if name in own and own[name] != value:
            words += _flag(flag(part, name) if part else name, own[name])
    return shlex.join(["dsd", *words])


def _flat(described: Mapping[str, Any]) -> dict[str, Any]:
    """What `describe_field` says of a field, as config.json has it."""
    return {"kind": described["kind"], **(described["field"] or {})}


def _flag(name: str, value: object) -> list[str]:
    """A flag and its value; one word where the value might be taken for another flag."""
    text = str(value)
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def seeds_text(seeds: Sequence[int]) -> str:
    """The shortest of what `parse_seeds` reads: 0:4, 0:16:2 or 1,5,9."""
    if len(seeds) > 2:
        step = seeds[1] - seeds[0]
        if step > 0 and list(seeds) == list(range(seeds[0], seeds[-1] + 1, step)):
            return f"{seeds[0]}:{seeds[-1] + 1}" + (f":{step}" if step > 1 else "")
    return ",".join(map(str, seeds))
