"""text3d.py where its disk is too small, or may no longer be written: one line, then it goes on."""

import os
import shutil
import signal
import subprocess

import pytest
from programs import end, files_of, start, wait_for

from dsd_jax.cli.program import FAILED
from dsd_jax.export import manifest

pytestmark = pytest.mark.slow
# Eight fields take 23 MB, which hardly shrink, and so do checkpoints, of which two are kept.
LARGE = ["--seeds", "0:8", "--levels", 8, "--start-levels", 8, "--log2-entries", 16, "--steps", 6]


def _system(*command) -> bool:
    """Whether a command of the system's did what it should."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([str(part) for part in command], capture_output=True).returncode == 0


def _one_error(said: str, reason: str) -> None:
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if "error" in line.lower()]
    assert line.startswith("error: ") and reason in line and "the same command goes on" in line


@pytest.fixture(scope="module")
def unbroken(tiny_prior_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    end(start(tiny_prior_folder, *LARGE, "--out", out))
    return files_of(out)


@pytest.fixture
def disk(tmp_path):
    """megabytes -> a folder that holds no more; called again, the same folder enlarged."""
    folder, mounted = tmp_path / "disk", []
    folder.mkdir()

    def sized(megabytes):
        how = "remount,size" if mounted else "size"
        if not _system("mount", "-t", "tmpfs", "-o", f"{how}={megabytes}m", "tmpfs", folder):
            pytest.skip("nothing can be mounted here")
        mounted.append(folder)
        return folder

    yield sized
    if mounted:
        _system("umount", "-l", folder)


@pytest.mark.parametrize("megabytes", [3, 10, 30])
def test_a_disk_that_is_full_is_one_line_and_enlarged_the_run_is_complete(
    unbroken, tiny_prior_folder, disk, megabytes
):
    program = start(tiny_prior_folder, *LARGE, "--out", disk(megabytes) / "runs")
    _one_error(end(program, FAILED), "No space left on device")
    out = disk(400) / "runs"
    end(start(tiny_prior_folder, *LARGE, "--out", out))
    (run,) = out.iterdir()
    assert manifest.faults(run) == [] and not (run / "checkpoints").exists()
    assert files_of(out) == unbroken


def test_folders_that_may_no_longer_be_written_are_one_line(unbroken, tiny_prior_folder, tmp_path):
    """From some moment of the run on, by the attribute "immutable", which binds root too."""
    program = start(tiny_prior_folder, *LARGE, "--out", tmp_path)
    wait_for(program, lambda: any(tmp_path.glob("*/checkpoints/*/[0-9]*")))
    (chunk,) = tmp_path.glob("*/checkpoints/*")
    folders = (chunk, chunk.parents[1])
    program.send_signal(signal.SIGSTOP)
    try:
        if not all(_system("chattr", "+i", folder) for folder in folders):
            program.kill()
            pytest.skip("no folder can be made immutable here")
        program.send_signal(signal.SIGCONT)
        _one_error(end(program, FAILED), os.strerror(1))
    finally:
        for folder in folders:
            _system("chattr", "-i", folder)
    end(start(tiny_prior_folder, *LARGE, "--out", tmp_path))
    assert files_of(tmp_path) == unbroken
