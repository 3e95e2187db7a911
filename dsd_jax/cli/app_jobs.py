"""The jobs of `dsd app`: one program at a time, in the order in which they were asked for.

    with Jobs(Path("runs")) as jobs:
        job = jobs.add(["text3d", "--prompt", "a house"])
        job.state, job.said, job.run
        jobs.cancel(job)

A job is a process of `dsd`, which writes a run's folder as ever. Nothing here knows of a page.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from dsd_jax.engine.lost import LOST

PROGRAM = (sys.executable, "-m", "dsd_jax")
WAITING, RUNNING, STOPPING = "waiting", "running", "stopping"
DONE, STOPPED, FAILED = "done", "stopped", "failed"
ENDED = (DONE, STOPPED, FAILED)
# How long a program that is told to end may take before it is killed.
GRACE_SECONDS = 20.0


@dataclass(eq=False)
class Job:
    """One program.

    Attributes:
        words: its command line, after the program.
        state: one of those above.
        said: the last line that it printed.
        run: name of its run's folder, "" as long as it is not known.
    """

    words: list[str]
    state: str = WAITING
    said: str = ""
    run: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED


class Jobs:
    """Use as a context manager: its end ends the job at work, which the same command resumes."""

    def __init__(self, out: Path, most: int = 20, program: Sequence[str] = PROGRAM):
        """
        Args:
            out: where the runs' folders are.
            most: how many jobs may wait for the one at work.
            program: what the words of a job follow.
        """
        self._out, self._most, self._program = out, most, list(program)
        self._jobs: list[Job] = []  # at work and waiting
        self._news, self._closed = threading.Condition(), False
        self._worker = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._worker.start()
        return self

    def __exit__(self, *_) -> None:
        with self._news:
            self._closed = True
            for job in self._jobs:
                job.state = STOPPING if job.process else STOPPED
                _send(job, signal.SIGTERM)
            self._news.notify_all()
        self._worker.join(GRACE_SECONDS)
        for job in self._jobs:
            _send(job, signal.SIGKILL)
        self._worker.join()

    def add(self, words: Sequence[str]) -> Job:
        """A job at the end of the queue. Raises ValueError, with one line, where that is full."""
        job = Job(list(words))
        with self._news:
            if self._closed:
                raise ValueError("the app is ending")
            if len(self._jobs) > self._most:
                raise ValueError(f"{self._most} jobs are waiting already; try again later")
            self._jobs.append(job)
            self._news.notify_all()
        return job

    def before(self, job: Job) -> int:
        """How many jobs must end before this one begins."""
        with self._news:
            return self._jobs.index(job) if job in self._jobs else 0

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or tell it to end as Ctrl-C does: what is done is kept.

        Once more, and it ends at once, as far as its last checkpoint.
        """
        with self._news:
            if job.state == WAITING:
                job.state = STOPPED
                self._jobs.remove(job)
            elif not job.ended:
                number = signal.SIGKILL if job.state == STOPPING else signal.SIGINT
                job.state = STOPPING  # before it ends, which may be at once
                _send(job, number)

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._jobs[0]
                job.state = RUNNING
                job.process = self._start(job)
            ended = self._follow(job, job.process)
            with self._news:
                job.state = ended
                self._jobs.remove(job)

    def _start(self, job: Job) -> subprocess.Popen[str]:
        """In a session of its own: Ctrl-C in the terminal is for the app, which tells it."""
        return subprocess.Popen(
            [*self._program, *job.words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def _follow(self, job: Job, process: subprocess.Popen[str]) -> str:
        """Read what a program says until its end; returns the state that it ends in."""
        assert process.stdout is not None
        named = re.compile(re.escape(str(self._out)) + r"[/\\]([\w-]+)(?=:|$| is )")
        for line in process.stdout:
            line = line.strip()
            found = named.match(line)
            job.run = found[1] if found else job.run
            job.said = line.replace(f"{self._out}{os.sep}", "") or job.said
        code = process.wait()
        if job.state == STOPPING:
            return STOPPED
        return DONE if code in (0, LOST) else FAILED


def _send(job: Job, number: int) -> None:
    """A signal to a job's program, where it runs."""
    if job.process is not None:
        with contextlib.suppress(ProcessLookupError):
            job.process.send_signal(number)
