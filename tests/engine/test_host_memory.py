"""What a process asks of the system for its buffers."""

import subprocess
import sys

import pytest

# Pages that the system has to provide while a buffer of 64 MB is taken and freed 8 times.
COUNT = """
import resource
from dsd_jax.engine import host_memory
{first}
def use():
    buffer = bytearray(2**26)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
before = faults()
for _ in range(8):
    use()
print(faults() - before)
if {first!r}:
    held = host_memory.resident()
    host_memory.give_back()
    print(held - host_memory.resident())
"""


def counted(first: str) -> list[int]:
    command = [sys.executable, "-c", COUNT.format(first=first)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(line) for line in run.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has the call")
def test_freed_buffers_are_kept_until_they_are_given_back():
    (usual,) = counted("")
    kept, given = counted("host_memory.keep_freed()")
    assert kept < usual / 4 or usual < 100  # some systems provide large pages
    assert given > 2**25
