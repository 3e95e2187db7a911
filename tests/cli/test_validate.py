"""What is set up before JAX is used, in processes of their own, since JAX reads it once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsd_jax.cli import validate
from dsd_jax.distillation import METHODS
from dsd_jax.recipe.presets import PRESETS

PROGRAM = """
import sys
import jax
import jax.numpy as jnp
from dsd_jax.cli import validate
validate.set_up_jax(sys.argv[1:])
print(jax.config.values["jax_compilation_cache_dir"], jax.jit(lambda x: x + 1)(jnp.zeros(3))[0])
print(jax.device_count())
"""


def run(*argv, **environment) -> tuple[list[str], str]:
    """What the program prints, and what it says on stderr, with no cache but those given."""
    names = ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")
    inherited = {k: v for k, v in os.environ.items() if k not in names}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv],
        env={**inherited, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("name", "folder", "argv", "flags", "devices"),
    [
        ("XDG_CACHE_HOME", "dsd_jax/xla", ["--devices", "3"], "", 3),
        ("HOME", ".cache/dsd_jax/xla", ["--devices=3"],
         "--xla_force_host_platform_device_count=5", 5),
        ("JAX_COMPILATION_CACHE_DIR", ".", ["--devices", "x"], "", min(os.cpu_count() or 1, 8)),
        ("XDG_CACHE_HOME", "dsd_jax/xla", ["--devices", "9"], "", 8),
    ],
)  # fmt: skip
def test_where_programs_are_kept_and_how_many_devices_a_cpu_is(
    tmp_path, name, folder, argv, flags, devices
):
    """In the user's cache or where JAX was told; as many as asked for, unless XLA was told."""
    said, _ = run(*argv, **{name: str(tmp_path)}, XLA_FLAGS=flags)
    assert said == [str(tmp_path / folder), "1.0", str(devices)]
    assert any(entry.name.startswith("jit__lambda") for entry in (tmp_path / folder).iterdir())


def test_without_a_folder_to_write_to_nothing_is_kept_and_nothing_said(tmp_path):
    (tmp_path / "file").write_text("no folder")
    said, errors = run(XDG_CACHE_HOME=str(tmp_path / "file"))
    assert said[:2] == ["None", "1.0"] and errors == ""


def test_a_folder_that_jax_was_told_and_cannot_be_written_is_one_line(tmp_path):
    folder = tmp_path / "file" / "kept"
    (tmp_path / "file").write_text("no folder")
    said, errors = run(JAX_COMPILATION_CACHE_DIR=str(folder))
    assert said[:2] == ["None", "1.0"] and errors == (
        f"warning: JAX_COMPILATION_CACHE_DIR={folder} cannot be written: Not a directory; "
        "compiled programs are not kept\n"
    )


def test_a_relative_cache_folder_is_ignored(tmp_path, monkeypatch):
    """As the XDG base directory specification has it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("relative", "../up", "", "~/kept"):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert validate._cache_folder() == tmp_path / ".cache" / "dsd_jax" / "xla"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert validate._cache_folder() == tmp_path / "own" / "dsd_jax" / "xla"


def test_the_nearest_name_is_said_only_where_it_is_near():
    assert validate.nearest("dsd-star", sorted(METHODS)) == "; did you mean dsd?"
    assert validate.nearest("QUIK", sorted(PRESETS)) == "; did you mean quick?"
    assert validate.nearest("fast", sorted(PRESETS)) == ""
