"""The memory of this machine: what is free of it, and what a process keeps and gives back."""

import ctypes
import os
import platform
import resource
import sys
from contextlib import suppress

# glibc's mallopt(3): M_ARENA_MAX, one heap for all threads; M_MMAP_MAX, no block outside of it;
# M_TRIM_THRESHOLD, never made smaller unasked; M_TOP_PAD, made larger by 256 MiB at a time.
_KEEPING = {-8: 1, -4: 0, -1: 2**31 - 1, -2: 2**28}


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


def give_back() -> None:
    """Return to the system what was freed.

    A compiler's threads free a gigabyte that the C library would keep. Other libraries than glibc
    have no such call.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed() -> None:
    """Keep what is freed for what is allocated next; to be called before threads are started.

    XLA asks for a step's buffers at its start and frees them at its end. By glibc's defaults the
    system takes them, and hands out pages that it zeroes one by one: a third of a step's time on a
    CPU. With other libraries nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        for option, value in _KEEPING.items():
            ctypes.CDLL(None).mallopt(option, value)
