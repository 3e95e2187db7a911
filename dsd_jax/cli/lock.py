"""One process a run's folder: who comes second is told who works there."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from dsd_jax.engine import hosts

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = ".lock"


class Held(ValueError):
    """Another process holds the folder; says in one line which."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, which must exist. Of several processes of one run the first one does.

    The system lets go of it when the process ends, however it ends.

    Raises:
        Held: another process holds it.
    """
    file, said = None, ""
    if hosts.is_first():
        try:
            file = _locked(folder / NAME)
        except BlockingIOError:
            said = _holder(folder)
    if hosts.everyones(bool(said)).any():
        raise Held(said or f"another process is at work in {folder}")
    try:
        yield
    finally:
        if file is not None:
            (folder / NAME).unlink(missing_ok=True)
            os.close(file)


def refuse_held(folder: Path) -> None:
    """Raise as `held` where another process holds the folder; holds nothing."""
    if fcntl is None or not (folder / NAME).exists():
        return
    with contextlib.suppress(FileNotFoundError):
        file = os.open(folder / NAME, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(_holder(folder)) from None
        except OSError:
            return  # a file system without locks
        finally:
            os.close(file)


def _locked(path: Path) -> int | None:
    """An open file that holds the lock and says who does; None where nothing can be locked.

    Raises BlockingIOError where another process has it.
    """
    if fcntl is None:
        return None
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(path, file):
                break
        except BlockingIOError:
            os.close(file)
            raise
        except OSError:
            break  # a file system without locks
        os.close(file)  # who had it has just taken the file away
    since = datetime.now().isoformat(" ", "seconds")
    about = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
    os.truncate(file, 0)
    os.write(file, json.dumps(about).encode())
    return file


def _is(path: Path, file: int) -> bool:
    """Whether a path still names an open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _holder(folder: Path) -> str:
    """One line for the user."""
    try:
        about = json.loads((folder / NAME).read_text("utf-8"))
        who = f"process {about['process']} on {about['host']}, since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return f"{who}, is at work in {folder}; wait for its end, or give another --out"
