"""Variables of the environment that make no sense."""

import os
import shutil
import subprocess
import sys

import pytest
from programs import ROOT

from dsd_jax.cli import environment, program, validate

NONSENSE = ("0", "-5", "x", "²", "", "1e3", "8 0")


@pytest.mark.parametrize("name", ["COLUMNS", "LINES"])
@pytest.mark.parametrize("text", NONSENSE)
def test_a_size_that_is_none_is_given_up(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    environment.mend_terminal()
    assert name not in os.environ


@pytest.mark.parametrize(("text", "width"), [("1", 40), ("39", 40), ("72", 72), ("9" * 30, 1000)])
def test_a_width_is_kept_within_what_help_can_be_set_in(monkeypatch, text, width):
    monkeypatch.setenv("COLUMNS", text)
    environment.mend_terminal()
    assert shutil.get_terminal_size().columns == width


def test_so_is_that_of_the_terminal_itself(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((5, 9)))
    environment.mend_terminal()
    assert shutil.get_terminal_size().columns == 40


@pytest.mark.parametrize("columns", ["0", "3"])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [(["--help"], "--single-file"), (["runs", "--single-file=3"], "Unrecognized options")],
)
def test_help_and_errors_are_printed_in_any_width(monkeypatch, capsys, columns, flags, expected):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(validate, "set_up_jax", lambda argv: None)
    with pytest.raises(SystemExit):
        program.start("export_gallery", flags)
    assert expected in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("JAX_ENABLE_X64", "perhaps", "invalid truth value 'perhaps' for environment '{0}'"),
        ("JAX_LOGGING_LEVEL", "x", 'Invalid value "x" for JAX flag jax_logging_level'),
        ("JAX_TRACER_ERROR_NUM_TRACEBACK_FRAMES", "many",
         "invalid literal for int() with base 10: 'many'"),
    ],
)  # fmt: skip
def test_what_jax_cannot_take_is_named(monkeypatch, variable, value, said):
    def imported(name):
        raise ValueError(said.format(variable))

    monkeypatch.setattr(environment.importlib, "import_module", imported)
    monkeypatch.setenv(variable, value)
    assert environment.misread().startswith(f"JAX takes no {variable}={value}; leave it out")


@pytest.mark.parametrize("words", [["words"], ["wrods"]])
def test_it_is_one_line_of_every_program(words):
    known = os.environ | {"PYTHONPATH": str(ROOT), "JAX_ENABLE_X64": "perhaps"}
    command = [sys.executable, "-m", "dsd_jax", *words]
    done = subprocess.run(command, env=known, capture_output=True, text=True, check=False)
    assert done.returncode == program.BAD_INPUT and done.stdout == ""
    assert done.stderr.startswith("error: JAX takes no JAX_ENABLE_X64=perhaps; ")
    assert done.stderr.count("\n") == 1


def test_where_nothing_is_wrong_nothing_is_said():
    assert environment.misread() == ""
