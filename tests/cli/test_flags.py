"""The command line of a program: its own flags, and a group of them for each part of a recipe."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from dsd_jax.cli import flags
from dsd_jax.distillation import SDS
from dsd_jax.recipe.presets import quick
from dsd_jax.recipe.recipe import changed, numbers, with_method


@dataclass(frozen=True)
class Inner:
    """Inside."""

    samples: int = 3
    """A number of the program's own, of a name that the recipe has too."""


@dataclass(frozen=True)
class Args:
    """A program."""

    prompt: str = "a house"
    """What to make."""
    on: tyro.conf.OmitArgPrefixes[Inner] = field(default_factory=Inner)


def parse(*argv, recipe=quick):
    return flags.parse(Args, argv, "About it.", Args(), recipe)


@pytest.mark.parametrize(
    "words", [["--steps", "a" * 100_000], ["--" + "a" * 100_000], ["--view-noise", "a b " * 9000]]
)
def test_of_a_long_word_the_beginning_is_said(capsys, words):
    with pytest.raises(SystemExit) as ended:
        parse(*words)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and 200 < len(said) < 4000


def test_a_long_word_that_is_right_is_taken_whole(capsys):
    assert parse("--prompt", "a house " * 9000)[0].prompt == "a house " * 9000
    with pytest.raises(SystemExit) as ended:
        parse("--prompt", "a" * 1000, "--help-all")
    assert ended.value.code == 0 and capsys.readouterr().out.count("--prompt") == 1


def test_the_last_value_of_a_flag():
    assert flags.flag_value(["--a", "1", "--a=2", "--ab", "3"], "a") == "2"
    assert flags.flag_value(["--a"], "a") is None and flags.flag_value([], "a") is None


def test_a_number_may_stand_with_or_without_its_part():
    args, recipe = parse("--levels", "4", "--render.samples=5", "--t_min", "0.2", "--prompt", "x")
    assert args == Args("x")
    assert recipe == changed(quick, **{"levels": 4, "render.samples": 5, "t_min": 0.2})


def test_the_program_s_own_flags_come_first():
    args, recipe = parse("--samples", "9")
    assert args.on.samples == 9 and recipe == quick
    assert flags.own_names(Args) == {"prompt", "samples"}


def test_every_number_of_every_part_can_be_typed():
    """Those of the recipe's own method, too."""
    recipe = with_method(quick, "asd")
    words = []
    for part, name, value in numbers(recipe):
        if part and value is not None and value != "":
            words += [f"--{part}.{name}", str(value)]
    assert parse(*words, recipe=recipe)[1] == recipe
    assert parse("--gamma", "-0.25", recipe=recipe)[1].method.gamma == -0.25


def test_a_number_of_several_parts_is_refused_without_its_part():
    @dataclass(frozen=True)
    class Sampled(SDS):
        """A method with a number of a name that rendering has, too."""

        samples: int = 1

    recipe = dataclasses.replace(quick, method=Sampled())
    both = "--method.samples or --render.samples"
    with pytest.raises(ValueError) as caught:
        flags.with_parts(["--samples", "2"], recipe, [])
    assert str(caught.value) == f"--samples stands in several parts of the recipe: write {both}"
    for words in (["--render.samples", "2"], ["--steps", "2"]):
        assert flags.with_parts(words, recipe, []) == words
    assert flags.with_parts(["--samples=2"], recipe, ["samples"]) == ["--samples=2"]


def test_rare_flags_are_of_help_all_alone(capsys):
    @dataclass(frozen=True)
    class Hosts:
        """Of several machines."""

        port: int = 8080

    @dataclass(frozen=True)
    class Program:
        """A program."""

        prompt: str = ""
        """What to make."""
        debug: Annotated[bool, flags.RARE] = False
        hosts: Annotated[tyro.conf.OmitArgPrefixes[Hosts], flags.RARE] = field(
            default_factory=Hosts
        )

    said = []
    for word in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            flags.parse(Program, [word], "About it.", Program(prompt="x"), quick)
        said.append(capsys.readouterr().out)
    assert all("--prompt" in text and "(default: x)" in text for text in said)
    assert [("--debug" in text, "--port" in text) for text in said] == [(False,) * 2, (True,) * 2]
    args, _ = flags.parse(Program, ["--debug", "--port", "1"], "", Program(), quick)
    assert args.debug and args.hosts.port == 1


def test_what_a_part_refuses_is_said_as_the_part_says_it():
    with pytest.raises(ValueError, match=r"--optimise\.t-min must be below --optimise"):
        parse("--t-min", "0.99")
    with pytest.raises(ValueError, match=r"--method\.eta-at must be below --optimise"):
        parse("--eta-at", "0.99")


@pytest.mark.parametrize(
    ("words", "named"),
    [("--level 4", "--level"), ("--levels x", "--field.levels"), ("--eta 1 2", "options: 2")],
)
def test_what_is_no_flag_or_no_value_ends_the_program(words, named, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(*words.split())
    assert caught.value.code == 2 and named in capsys.readouterr().err


def test_help_is_short_and_help_all_spells_the_parts_out(capsys):
    said = []
    for word in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as caught:
            parse(word)
        assert caught.value.code == 0
        said.append(capsys.readouterr().out)
    short, whole = said
    parts = [own.name for own in dataclasses.fields(quick) if own.name != "steps"]
    assert all(f"--{part}." in short and f"--{part}." in whole for part in parts)
    assert "--prompt" in short and "--field.levels" not in short
    assert "--prompt" in whole and "--field.levels" in whole and "Levels of the hash grid" in whole


@dataclasses.dataclass(frozen=True)
class _Inner:
    out: Path = Path()
    profile: Path | None = None


@dataclasses.dataclass(frozen=True)
class _Paths:
    files: tuple[Path, ...] = ()
    prior: str = "toybox"
    prompt: str = ""
    prompts: tuple[str, ...] = ()
    number: float = 0.0
    inner: tyro.conf.OmitArgPrefixes[_Inner] = dataclasses.field(default_factory=_Inner)


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--out=~/runs", "--profile", "~", "--files", "~/a.png", "b~", "--prior", "~/prior"]
    found = flags.cli(_Paths, [*words, "--prompts", "~/p.txt", "~ a wave"], None)
    assert found.inner == _Inner(tmp_path / "runs", tmp_path)
    assert found.files == (tmp_path / "a.png", Path("b~"))
    assert found.prior == f"{tmp_path}/prior"
    assert found.prompts == (f"{tmp_path}/p.txt", "~ a wave")
    with pytest.raises(ValueError, match=r"there is no home folder ~nobody-of-this-name; spell"):
        flags.cli(_Paths, ["--out=~nobody-of-this-name/x"], None)


def test_values_may_start_with_a_dash():
    words = ["--prompt", "-a house", "--prompts", "b", "--c d", "- e f", "--number", "-3"]
    found = flags.cli(_Paths, words, None)
    assert (found.prompt, found.prompts) == ("-a house", ("b", "--c d", "- e f"))
    assert found.number == -3
    assert flags.cli(_Paths, ["--prompt=-a house"], None).prompt == "-a house"
    assert flags.cli(_Paths, ["--files", "-my house.png"], None).files == (Path("-my house.png"),)


@pytest.mark.parametrize("words", [["--prompt", "a \udcff"], ["--prompt=a \udcff"]])
def test_what_is_no_text_is_refused(words):
    with pytest.raises(ValueError, match=r"a .udcff is no text") as error:
        flags.cli(_Paths, words, None)
    str(error.value).encode()
