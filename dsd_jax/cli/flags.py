"""The command line of a program: its own flags, and a group of flags for each part of a recipe.

A number of the recipe may be written with its part, --render.samples 48, or, where only one part
has a number of that name, without it: --samples 48.
"""

import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro

from dsd_jax.checks import flag
from dsd_jax.files import is_text, shortened
from dsd_jax.recipe.recipe import Recipe, numbers

Args = TypeVar("Args")
HELP_ALL = "--help-all"
# Annotated[int, RARE] is a flag that --help leaves out.
RARE = "rarely used"
_FLAG = re.compile(r"--([A-Za-z][\w-]*)(=.*)?", re.DOTALL)
_ANY_FLAG = re.compile(r"-\w|--[A-Za-z][\w.-]*(=.*)?", re.DOTALL)
# Invisible, before what starts with a dash and is no flag: tyro takes it for a value then.
_VALUE = "\u2060"
_LONG = 200


def cli(
    kind: type[Args], argv: Sequence[str] | None, description: str | None, default: Any = None
) -> Args:
    """What `tyro.cli` reads of a command line; every program of the project reads its own here.

    A ~ at the start of a path is the home folder, and what holds a space is a value even if it
    starts with a dash. Ends the program as tyro does.

    Args:
        argv: the command line; None takes that of this process.

    Raises:
        ValueError: a word is no text, or a ~ names no one whose home folder is known.
    """
    argv = sys.argv[1:] if argv is None else argv
    for word in argv:
        if not is_text(word):
            raise ValueError(f"{ascii(word)[1:-1]} is no text: its bytes are not UTF-8; retype it")
    spaced = [" " in word and word[0] == "-" and not _ANY_FLAG.fullmatch(word) for word in argv]
    words = [_VALUE * value + word for value, word in zip(spaced, argv, strict=True)]
    more = {} if default is None else {"default": default}
    return _meant(_parsed(kind, words, description=description, **more))


def _parsed(kind: type[Args], words: list[str], **more: Any) -> Args:
    """What `tyro.cli` makes of words. It shows those that are wrong in full: long ones it is given
    again, shortened, so that it shows these."""
    brief = [word if len(word) <= _LONG else shortened(word, _LONG) for word in words]
    if brief != words:
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                return tyro.cli(kind, args=words, **more)
        except SystemExit as ended:
            if not ended.code:
                raise
            words = brief
    return tyro.cli(kind, args=words, **more)


def _meant(value: Any) -> Any:
    """A value, or those in a dataclass or tuple, as `cli` promises them."""
    if isinstance(value, Path):
        path = Path(os.path.expanduser(str(value).removeprefix(_VALUE)))
        if path.parts and path.parts[0][0] == "~" and not Path(path.parts[0]).exists():
            raise ValueError(f"{path}: there is no home folder {path.parts[0]}; spell the path out")
        return path
    if isinstance(value, str):
        value = value.removeprefix(_VALUE)
        return os.path.expanduser(value) if value.startswith("~/") else value
    if isinstance(value, tuple):
        return tuple(map(_meant, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = [one.name for one in dataclasses.fields(value) if one.init]
        return dataclasses.replace(value, **{name: _meant(getattr(value, name)) for name in own})
    return value


def flag_value(argv: Sequence[str], name: str) -> str | None:
    """What `--name VALUE` or `--name=VALUE` says; the last one counts, None where there is none."""
    value = None
    for i, word in enumerate(argv):
        if word == f"--{name}" and i + 1 < len(argv):
            value = argv[i + 1]
        elif word.startswith(f"--{name}="):
            value = word.partition("=")[2]
    return value


def parse(
    kind: type[Args], argv: Sequence[str], description: str, default: Args, recipe: Recipe
) -> tuple[Args, Recipe]:
    """The program's own arguments and the recipe, both as the command line changes them.

    --help shows the program's own flags but the `RARE` ones, and names the groups; --help-all
    spells all out. Both end the program, and so does what is no flag, or no value of its flag.

    Args:
        kind: dataclass of the program's own flags; those of its fields that are dataclasses
            themselves come without a prefix.
        default: what they start from.
        recipe: what its numbers start from.

    Raises:
        ValueError: a part of the recipe refuses a number, or several have one of that name; says
            which; or as `cli`.
    """
    parts = {part: getattr(recipe, part) for part, _, _ in numbers(recipe) if part}
    if {"-h", "--help"} & {*argv}:
        about = f"{description.rstrip()}\n\n{groups_text(parts)}"
        tyro.cli(_without_rare(default), args=["--help"], description=about)
    fields: list[Any] = [
        ("program", tyro.conf.OmitArgPrefixes[kind], dataclasses.field(default=default))
    ]
    fields += [_unchecked(part, value) for part, value in parts.items()]
    program = dataclasses.make_dataclass(kind.__name__, fields, frozen=True)
    words = ["--help" if word == HELP_ALL else word for word in argv]
    words = with_parts(words, recipe, own_names(kind))
    parsed: Any = cli(program, words, description)
    found = {
        part: type(value)(**dataclasses.asdict(getattr(parsed, part)))
        for part, value in parts.items()
    }
    return parsed.program, dataclasses.replace(recipe, **found)


def _unchecked(part: str, value: Any) -> tuple[str, type, Any]:
    """A part as a field of a dataclass; it takes any value, so that the part itself says no."""
    kind: Any = type(value)
    names = {"__post_init__": lambda self: None, "__doc__": kind.__doc__}
    kind = dataclass(frozen=True)(type(kind.__name__, (kind,), names))
    numbers = {own.name: getattr(value, own.name) for own in dataclasses.fields(value)}
    return part, kind, dataclasses.field(default=kind(**numbers))


def _without_rare(default: Any) -> Any:
    """The dataclass of `default`, which are its defaults, without the flags that are `RARE`."""
    kind, own = type(default), []
    hints = get_type_hints(kind, include_extras=True)
    for one in dataclasses.fields(kind):
        hint, value = hints[one.name], getattr(default, one.name)
        if RARE in getattr(hint, "__metadata__", ()):
            hint = tyro.conf.Suppress[hint]
        elif dataclasses.is_dataclass(value):
            inner = _without_rare(value)
            hint, value = tyro.conf.OmitArgPrefixes[inner], inner()
        own.append((one.name, hint, dataclasses.field(default=value)))
    about = {"__doc__": kind.__doc__}
    return dataclasses.make_dataclass(
        kind.__name__, own, bases=(kind,), namespace=about, frozen=True
    )


def groups_text(parts: Iterable[str]) -> str:
    """The line of a program's help that names the groups."""
    names = " ".join(f"--{part}.*" for part in parts)
    return f"Rarer flags, and every number of the recipe ({HELP_ALL} lists them): {names}"


def own_names(kind: type) -> set[str]:
    """Names of the flags of a dataclass, those of the dataclasses in it included."""
    found = set()
    for own in dataclasses.fields(kind):  # pyright: ignore[reportArgumentType]
        inner = own.default_factory
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            found |= own_names(inner)
        else:
            found.add(own.name)
    return found


def with_parts(argv: Sequence[str], recipe: Recipe, own: Iterable[str]) -> list[str]:
    """The command line with numbers of the recipe under their part: --samples as --render.samples.

    What is a flag of the program's own stays as it is.

    Raises:
        ValueError: a number stands in several parts; says in which.
    """
    own, parts = set(own), {}
    for part, name, _ in numbers(recipe):
        if part:
            parts.setdefault(name, []).append(part)

    def spelt(word: str) -> str:
        found = _FLAG.fullmatch(word)
        name = found[1].replace("-", "_") if found else ""
        if not found or name in own or name not in parts:
            return word
        if len(parts[name]) > 1:
            several = " or ".join(f"--{flag(part, name)}" for part in parts[name])
            raise ValueError(f"--{found[1]} stands in several parts of the recipe: write {several}")
        return f"--{flag(parts[name][0], name)}{found[2] or ''}"

    return [spelt(word) for word in argv]
