"""The memory of this machine: what is free of it, and what a process gives back."""

import ctypes
import os
import resource
import sys
from contextlib import suppress


def free() -> int:
    """Free bytes of this machine, as far as Linux tells; else 4 GB."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 * 10**9


def resident() -> int:
    """Bytes that this process holds, as far as Linux tells; else 0."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def peak() -> int:
    """Most bytes that this process held so far.

    Linux counts in `ru_maxrss` what the process held that started this one, in VmHWM it does not.
    """
    with suppress(OSError, ValueError, IndexError), open("/proc/self/status") as file:
        return int(file.read().partition("VmHWM:")[2].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# Of glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX.
_KEEPING = {-1: 2**31 - 1, -4: 0, -8: 1}


def keep_freed() -> None:
    """Have the C library keep what is freed, but for `give_back`; to be called first of all.

    glibc asks the system for each large buffer and gives it back after use. The system zeroes its
    pages every time, a sixth of a step on a CPU. Other libraries have no such call.
    """
    with suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        for option, value in _KEEPING.items():
            library.mallopt(option, value)


def give_back() -> None:
    """Return to the system what was freed.

    A compiler's threads free a gigabyte that the C library would keep. Other libraries than glibc
    have no such call.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
