"""Checks of the entries of a configuration, each of which raises ValueError in one line."""

import math
import reprlib
from collections.abc import Mapping
from typing import Any

MAX_LEVELS = 8

# {entry: (least, most)}; whole numbers only where both are.
Bounds = Mapping[str, tuple[float, float]]


def check_fixed(part: str, config: dict, fixed: dict) -> None:
    """Raises ValueError for the first entry of `config` that differs from `fixed`."""
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise ValueError(
                f"{part} config: {name} = {shown(config[name])} is not supported, only {value!r}"
            )


def require(part: str, config: dict, names) -> None:
    """Raises ValueError for the first of `names` that `config` lacks."""
    for name in names:
        if config.get(name) is None:
            raise ValueError(f"{part} config: entry {name} is missing")


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, and not true or false."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_numbers(part: str, values: Mapping[str, Any], bounds: Bounds) -> None:
    """Raises ValueError for the first of `values` outside its bounds; tuples by their members."""
    for name, (least, most) in bounds.items():
        given = values[name]
        for value in given if isinstance(given, tuple) else (given,):
            whole = is_whole(least) and is_whole(most)
            if not _is_number(value, whole) or not least <= value <= most:
                kind = "a whole number" if whole else "a number"
                wanted = f"{least}" if least == most else f"{kind} from {least:g} to {most:g}"
                raise ValueError(f"{part} config: {name} needs {wanted}, got {shown(value)}")


def check_flags(part: str, values: Mapping[str, Any], names) -> None:
    """Raises ValueError for the first of `names` that is neither true nor false."""
    for name in names:
        if not isinstance(values[name], bool):
            raise ValueError(
                f"{part} config: {name} needs true or false, got {shown(values[name])}"
            )


def levels_of(part: str, name: str, value: Any) -> tuple:
    """A list with an entry a level as a tuple. Raises ValueError for what is none, or too long."""
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_LEVELS:
        raise ValueError(
            f"{part} config: {name} needs a list of 1 to {MAX_LEVELS} entries, got {shown(value)}"
        )
    return tuple(value)


def per_level(value, levels: int, name: str) -> tuple[int, ...]:
    """An entry given once for all levels, or one a level, as a tuple of `levels` entries.

    Raises ValueError for another number of them, or for one that is no positive integer.
    """
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * levels
    if len(values) != levels or not all(is_whole(v) and v > 0 for v in values):
        raise ValueError(
            f"unet config: {name} needs {levels} positive integers, got {shown(value)}"
        )
    return values


def shown(value: Any) -> str:
    """A value as it goes into a line of an error: long ones are cut."""
    return reprlib.repr(value)


def _is_number(value: Any, whole: bool) -> bool:
    if whole or isinstance(value, int):
        return is_whole(value)
    return isinstance(value, float) and math.isfinite(value)
