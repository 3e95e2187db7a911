"""validate.set_up_jax: where compiled programs are kept. In processes of their own, since JAX reads
these settings once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os
import jax
import jax.numpy as jnp
from dsd_jax.cli import validate
validate.set_up_jax(os.environ.get("ARGV", "").split())
print(jax.config.values["jax_compilation_cache_dir"], jax.jit(lambda x: x + 1)(jnp.zeros(3))[0])
if "ARGV" in os.environ:
    print(jax.device_count())
"""


def run(**environment) -> tuple[str, str]:
    """What the program prints, and what it says on stderr, with no cache but those given."""
    names = ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")
    inherited = {k: v for k, v in os.environ.items() if k not in names}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**inherited, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("XDG_CACHE_HOME", "dsd_jax/xla"),
        ("HOME", ".cache/dsd_jax/xla"),
        ("JAX_COMPILATION_CACHE_DIR", "."),
    ],
)
def test_programs_are_kept_in_the_users_cache_or_where_jax_was_told(tmp_path, name, folder):
    said, _ = run(**{name: str(tmp_path)})
    assert said == f"{tmp_path / folder} 1.0"
    assert any(entry.name.startswith("jit__lambda") for entry in (tmp_path / folder).iterdir())


def test_without_a_folder_to_write_to_nothing_is_kept_and_nothing_said(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert run(XDG_CACHE_HOME=str(tmp_path / "file")) == ("None 1.0", "")


@pytest.mark.parametrize(
    ("argv", "flags", "devices"),
    [
        (["--devices", "3"], "", 3),
        (["--devices=3"], "--xla_force_host_platform_device_count=5", 5),
        (["--devices", "x"], "", min(os.cpu_count() or 1, 8)),
    ],
)
def test_a_cpu_is_as_many_devices_as_asked_for(tmp_path, argv, flags, devices):
    said, _ = run(XDG_CACHE_HOME=str(tmp_path), XLA_FLAGS=flags, ARGV=" ".join(argv))
    assert said.split()[-1] == str(devices)
