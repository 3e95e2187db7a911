"""What the numbers of a recipe's parts and methods may be.

Each raises a ValueError that names the flag: --camera.views of the number `views` in the group
"camera", --views without a group (""). None passes, where nothing else is said.
"""

import dataclasses
from typing import Any, Literal, get_args, get_origin

import numpy as np

_LARGEST = float(np.finfo(np.float32).max)


def flag(group: str, name: str) -> str:
    """A number's name as the command line spells it."""
    return (f"{group}.{name}" if group else name).replace("_", "-")


def at_least(part: Any, group: str, least: float, *names: str) -> None:
    """Refuse numbers of a part below `least`."""
    for name in names:
        value = getattr(part, name)
        if value is not None and not value >= least:
            raise ValueError(f"--{flag(group, name)} must be at least {least}, not {value}")


def at_most(part: Any, group: str, **most: float) -> None:
    """Refuse numbers of a part above these."""
    for name, bound in most.items():
        value = getattr(part, name)
        if value is not None and value > bound:
            raise ValueError(f"--{flag(group, name)} must be at most {bound}, not {value}")


def positive(part: Any, group: str, *names: str) -> None:
    """Refuse numbers of a part that are not above 0, or not finite."""
    for name in names:
        value = getattr(part, name)
        if not (value > 0 and is_finite(value)):
            raise ValueError(f"--{flag(group, name)} must be positive, not {value}")


def fractions(part: Any, group: str, *names: str) -> None:
    """Refuse numbers of a part outside 0 .. 1."""
    for name in names:
        value = getattr(part, name)
        if not 0 <= (value or 0) <= 1:
            raise ValueError(f"--{flag(group, name)} must lie in 0..1, not {value}")


def known_words(part: Any, group: str) -> None:
    """Refuse words of a part that its types do not name."""
    for own in dataclasses.fields(part):
        kinds = [own.type, *get_args(own.type)]
        words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        value = getattr(part, own.name)
        if words and value is not None and value not in words:
            wanted = ", ".join(words)
            raise ValueError(f"--{flag(group, own.name)} {value!r} is not one of {wanted}")


def finite(part: Any, group: str) -> None:
    """Refuse numbers of a part that are not finite, but for defaults."""
    for own in dataclasses.fields(part) if dataclasses.is_dataclass(part) else ():
        value = getattr(part, own.name)
        if isinstance(value, float) and not is_finite(value) and value is not own.default:
            raise ValueError(
                f"--{flag(group, own.name)} must be a finite number (below 3.4e38), not {value}"
            )


def is_finite(value: float) -> bool:
    """Whether it is a number in float32 too, in which all is computed."""
    return abs(value) <= _LARGEST
