"""Settings of one method among several: "sds:guidance_scale=10,t_min=0.1"."""

from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dsd_jax.cli import validate
from dsd_jax.recipe.presets import Settings


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """(method, {setting: value}) of METHOD:SETTING=VALUE,SETTING=VALUE; dashes may be underscores.

    Raises ValueError in one line for what is malformed, no setting, or no value of that setting.
    """
    method, colon, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")]
    if not (method and colon) or not all(name and sign for name, sign, _ in pairs):
        raise ValueError(f"--set {text!r} must be METHOD:SETTING=VALUE, as sds:guidance_scale=10")
    hints, changes = get_type_hints(Settings), {}
    for name, _, value in pairs:
        name = name.strip().replace("-", "_")
        validate.choice("set", name, hints)
        changes[name] = _value(text, name, value.strip(), hints[name])
    return method, changes


def _value(text: str, name: str, value: str, hint: Any) -> Any:
    """The value of a setting whose annotation is `hint`."""
    for kind in _kinds(hint):
        if (kind is NoneType and value == "None") or kind is str or value == kind:
            return None if kind is NoneType else value
        if kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    valid = " or ".join(getattr(kind, "__name__", str(kind)) for kind in _kinds(hint))
    valid = valid.replace("NoneType", "None")
    raise ValueError(f"--set {text!r}: {name} must be {valid}, not {value!r}")


def _kinds(hint: Any) -> list[Any]:
    """Types, and values of literals, that an annotation allows."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    parts = get_args(hint)
    return [kind for part in parts for kind in _kinds(part)] if parts else [hint]
