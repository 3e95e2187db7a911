"""Threads that use the devices beside a run take turns, and wait where they would disturb it."""

import threading
from contextlib import ExitStack, contextmanager

# Threads that use the devices beside a run: how many may, and the door that they come in by.
TURNS = 2
_TURNS, _DOOR = threading.Semaphore(TURNS), threading.Lock()


@contextmanager
def beside_a_run():
    """Where a thread uses the devices while a run goes on. Waits where it would disturb."""
    with _DOOR:
        _TURNS.acquire()
    try:
        yield
    finally:
        _TURNS.release()


@contextmanager
def undisturbed():
    """While no thread is `beside_a_run`. Waits for those that are, and lets no other in.

    cuDNN warms an attention up when its program first runs, by capturing a CUDA graph. That fails
    at times if another thread is busy with the device ("capturing stream has unjoined work").
    """
    with ExitStack() as stack:
        stack.enter_context(_DOOR)
        for _ in range(TURNS):
            stack.enter_context(_TURNS)
        yield
