"""How long something takes. Without JAX, since PyTorch is timed by it too."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Time(NamedTuple):
    """Milliseconds of one unit: median, least and most of several repeats."""

    median: float
    least: float
    most: float


class Care(NamedTuple):
    """How carefully to time.

    Attributes:
        seconds: that a repeat takes at least; short calls are queued until it does.
        repeats: how many, but 3 where they would take more than `patience` seconds.
    """

    seconds: float = 0.5
    repeats: int = 5
    patience: float = 30.0


def clock(call: Callable[[], Any], wait: Callable[[Any], Any], units: int, care: Care) -> Time:
    """Time of `call`, which does `units` units and need not wait for them; `wait` does.

    A repeat queues calls one after another and waits for the last alone, so that what the host
    spends on starting them counts only where the device is faster.
    """
    wait(call())
    began = time.perf_counter()
    wait(call())
    once = max(time.perf_counter() - began, 1e-6)
    queued = max(1, min(1000, round(care.seconds / once)))
    repeats = care.repeats if queued * once * care.repeats <= care.patience else 3
    times = []
    for _ in range(repeats):
        began, result = time.perf_counter(), None
        for _ in range(queued):
            result = call()
        wait(result)
        times.append((time.perf_counter() - began) * 1e3 / queued / units)
    return Time(statistics.median(times), min(times), max(times))
