"""One process a run's folder."""

import os
import subprocess
import sys

import pytest
from programs import ROOT

from dsd_jax.cli import lock

_HOLDER = """
import sys, time
from pathlib import Path
from dsd_jax.cli import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a folder."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_who_was_first_and_takes_over_when_that_is_dead(holder, tmp_path):
    said = rf"process {holder.pid} on .*, since 20.*, is at work in {tmp_path}; wait for its end"
    with pytest.raises(lock.Held, match=said), lock.held(tmp_path):
        pass
    with pytest.raises(lock.Held, match=said):
        lock.refuse_held(tmp_path)
    holder.kill()
    holder.wait()
    assert (tmp_path / lock.NAME).exists()
    lock.refuse_held(tmp_path)
    with lock.held(tmp_path):
        assert str(os.getpid()) in (tmp_path / lock.NAME).read_text()
        with pytest.raises(lock.Held), lock.held(tmp_path):
            pass
    assert not (tmp_path / lock.NAME).exists()


def test_a_damaged_lock_does_not_hide_that_it_is_held(tmp_path):
    with lock.held(tmp_path):
        (tmp_path / lock.NAME).write_text("null")
        with pytest.raises(lock.Held, match="another process, is at work in"):
            lock.refuse_held(tmp_path)
    lock.refuse_held(tmp_path)
