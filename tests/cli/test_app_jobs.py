"""The queue of `dsd app`, with programs of a few lines in the place of text3d."""

import sys
import time

import pytest

from dsd_jax.cli import app_jobs
from dsd_jax.cli.app_jobs import Jobs

# Says where its run is, then works until it is told to end, or until there is a file.
_WORK = """
import pathlib, signal, sys, time
name, out = sys.argv[1], pathlib.Path(sys.argv[2])
if name == "bad":
    sys.exit("error: --prompt is bad")
def stop(*_):
    print("stopped; writing the results", flush=True)
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
print(f"{out}/{name}-1a2b3c4d: 2 seeds; compiling ...", flush=True)
(out / f"{name}.begun").touch()
while not (out / f"{name}.go").exists():
    time.sleep(0.01)
print(out / f"{name}-1a2b3c4d")
"""


@pytest.fixture
def jobs(tmp_path):
    with Jobs(tmp_path, most=2, program=[sys.executable, "-c", _WORK]) as jobs:
        yield jobs


def wait(condition):
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def words(name, out):
    return [name, str(out)]


def test_one_at_a_time_in_their_order(jobs, tmp_path):
    first, second, third = (jobs.add(words(name, tmp_path)) for name in ("a", "b", "c"))
    wait((tmp_path / "a.begun").exists)
    assert first.state == "running" and second.state == third.state == "waiting"
    assert [jobs.before(job) for job in (first, second, third)] == [0, 1, 2]
    wait(lambda: first.run == "a-1a2b3c4d")
    assert first.said == "a-1a2b3c4d: 2 seeds; compiling ..."
    with pytest.raises(ValueError, match="2 jobs are waiting already"):
        jobs.add(words("d", tmp_path))
    (tmp_path / "a.go").touch()
    wait((tmp_path / "b.begun").exists)
    assert first.state == "done" and third.state == "waiting"
    assert not (tmp_path / "c.begun").exists() and jobs.before(third) == 1


def test_cancel_while_it_waits_and_while_it_works(jobs, tmp_path):
    first, second, third = (jobs.add(words(name, tmp_path)) for name in ("a", "b", "c"))
    wait(lambda: first.run)
    jobs.cancel(second)
    assert second.ended and second.state == "stopped"
    jobs.cancel(first)
    wait(lambda: first.ended)
    assert first.state == "stopped" and first.said == "stopped; writing the results"
    wait(lambda: third.run)
    assert not (tmp_path / "b.begun").exists()
    jobs.cancel(first)  # once more does nothing
    assert third.state == "running"


def test_cancel_twice_ends_what_does_not_listen(tmp_path):
    deaf = _WORK.replace("signal.signal(signal.SIGINT, stop)", "signal.signal(signal.SIGINT, 1)")
    with Jobs(tmp_path, program=[sys.executable, "-c", deaf]) as jobs:
        job = jobs.add(words("a", tmp_path))
        wait((tmp_path / "a.begun").exists)
        jobs.cancel(job)
        time.sleep(0.1)
        assert job.state == "stopping"
        jobs.cancel(job)
        wait(lambda: job.ended)
        assert job.state == "stopped" and job.run == "a-1a2b3c4d"


def test_what_a_program_refuses_is_its_line(jobs, tmp_path):
    job = jobs.add(words("bad", tmp_path))
    wait(lambda: job.ended)
    assert (job.state, job.said, job.run) == ("failed", "error: --prompt is bad", "")


def test_the_end_of_the_app_ends_its_program(tmp_path, monkeypatch):
    """Also one that does not listen."""
    monkeypatch.setattr(app_jobs, "GRACE_SECONDS", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, lambda *_: None)\n" + _WORK
    with Jobs(tmp_path, program=[sys.executable, "-c", deaf]) as jobs:
        job, waiting = jobs.add(words("a", tmp_path)), jobs.add(words("b", tmp_path))
        wait((tmp_path / "a.begun").exists)
    assert job.process.poll() is not None and job.ended and waiting.state == "stopped"
    with pytest.raises(ValueError, match="ending"):
        jobs.add(words("c", tmp_path))
