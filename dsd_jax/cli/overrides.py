"""Numbers of one method's recipe among several: "sds:guidance_scale=10,t_min=0.1"."""

from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dsd_jax.cli import validate
from dsd_jax.recipe.recipe import Recipe, numbers, part_of


def parse(text: str) -> tuple[str, dict[str, str]]:
    """(method, {number: value as typed}) of METHOD:NUMBER=VALUE,NUMBER=VALUE.

    Dashes in names may be underscores. Raises ValueError in one line for what is malformed.
    """
    method, colon, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")]
    if not (method and colon) or not all(name.strip() and sign for name, sign, _ in pairs):
        raise ValueError(f"--set {text!r} must be METHOD:NUMBER=VALUE, as sds:guidance_scale=10")
    validate.once("set", [name.strip().replace("-", "_") for name, _, _ in pairs])
    return method, {name.strip().replace("-", "_"): value.strip() for name, _, value in pairs}


def values(recipe: Recipe, given: Mapping[str, str]) -> dict[str, Any]:
    """The values of numbers of this recipe in their own types, as `recipe.changed` takes them.

    Args:
        given: {number: value as typed}; a number that several parts have is named with its part,
            `reference.mask`.

    Raises ValueError in one line for what is no number of the recipe, or no value of that number.
    """
    found, known = {}, [name for _, name, _ in numbers(recipe)]
    for name, text in given.items():
        try:
            part = part_of(recipe, name)
        except ValueError as error:
            near = "" if name in known else validate.nearest(name, known)
            raise ValueError(f"--set {name}: {error}{near}") from None
        owner = getattr(recipe, part) if part else recipe
        found[name] = _value(name, text, get_type_hints(type(owner))[name.rpartition(".")[2]])
    return found


def _value(name: str, text: str, hint: Any) -> Any:
    """The value of a number whose annotation is `hint`."""
    for kind in _kinds(hint):
        if (kind is NoneType and text == "None") or kind is str or text == kind:
            return None if kind is NoneType else text
        if kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    valid = " or ".join(getattr(kind, "__name__", str(kind)) for kind in _kinds(hint))
    valid = valid.replace("NoneType", "None")
    raise ValueError(f"--set {name}={text}: it must be {valid}, not {text!r}")


def _kinds(hint: Any) -> list[Any]:
    """Types, and values of literals, that an annotation allows."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    parts = get_args(hint)
    return [kind for part in parts for kind in _kinds(part)] if parts else [hint]
