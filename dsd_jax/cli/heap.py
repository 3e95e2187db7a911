"""What a program on a CPU does with memory that it gave back: it keeps it for the next step.

XLA asks for a step's buffers at its start and gives them back at its end. By glibc's defaults the
system takes them and hands out empty pages again, zeroed one by one: a third of a step's time.
"""

import ctypes
import platform

# Names and values of glibc's mallopt(3): one heap for all threads, no block outside of it, never
# made smaller, made larger by a quarter of a gigabyte at a time.
_OPTIONS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1)}
_OPTIONS |= {"M_TOP_PAD": (-2, 2**28)}


def keep_freed() -> None:
    """Nothing where the C library is another. It has to be said before threads are started."""
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for number, value in _OPTIONS.values():
        mallopt(number, value)
