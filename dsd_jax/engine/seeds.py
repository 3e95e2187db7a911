"""Seeds as the command line writes them, and how many of them run together.

Letters: n seeds in all, c seeds a chunk, k chunks, d devices.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dsd_jax.export.run_folder import seeds_of

MAX_SEED = 2**32 - 1
MOST_SEEDS = 100_000
_RANGE = re.compile(r"(\d*):(\d+)(?::(\d+))?")


def parse_seeds(text: str) -> list[int]:
    """Seeds of "0:16", "0:16:2", "3" or "1,5,9" (ranges may stand in a list too).

    Ranges are Python's: the end is left out, the start may be, the step is at least 1.

    Raises:
        ValueError: malformed, empty, negative or duplicate seeds, in one line that says which.
    """
    seeds: list[int] = []
    for part in text.split(","):
        seeds.extend(_parse_part(part.strip(), text))
    if not seeds:
        raise ValueError(f"--seeds {text!r} names no seed; write 0:4, 3 or 1,5,9")
    if len(seeds) > MOST_SEEDS:
        raise ValueError(f"--seeds names {len(seeds)} seeds; the most are {MOST_SEEDS}")
    if max(seeds) > MAX_SEED:
        raise ValueError(f"--seeds: {max(seeds)} is too large; the largest seed is {MAX_SEED}")
    seed, times = Counter(seeds).most_common(1)[0]
    if times > 1:
        raise ValueError(f"--seeds {text!r} names {seed} twice; name each seed once")
    return seeds


def checked_seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds as a list. Raises ValueError for none, doubles, and what is no seed."""
    found = [int(seed) for seed in seeds]
    if not found:
        raise ValueError("seeds names no seed; give for instance range(4)")
    if len({*found}) < len(found):
        raise ValueError("seeds names a seed twice; name each seed once")
    if not 0 <= min(found) <= max(found) <= MAX_SEED:
        raise ValueError(f"seeds are from 0 to {MAX_SEED}")
    return found


def _parse_part(part: str, text: str) -> range | list[int]:
    """One number or range of a seed list."""
    if part.isascii() and part.isdigit():
        return [int(part)]
    found = _RANGE.fullmatch(part) if part.isascii() else None
    if found is None:
        reason = "seeds are not negative" if "-" in part else "not a number or a range"
        raise ValueError(f"--seeds {text!r}: {part!r}: {reason}; write 0:4, 3 or 1,5,9")
    start, stop, step = int(found[1] or 0), int(found[2]), int(found[3] or 1)
    if step < 1:
        raise ValueError(f"--seeds {text!r}: the step of {part!r} must be at least 1")
    if stop > MAX_SEED + 1 or len(range(start, stop, step)) > MOST_SEEDS:
        raise ValueError(f"--seeds {text!r}: {part!r} names too many or too large seeds")
    if start >= stop:
        raise ValueError(f"--seeds {text!r}: {part!r} is an empty range; write start:end")
    return range(start, stop, step)


def chunk_length(n: int, each: int, devices: int = 1, all_of_them: bool = False) -> int:
    """How many of n seeds, spread over devices that hold `each` of them, run together.

    As few as the fewest possible chunks need, as few on a device as these need, and so many devices
    that none of them is idle. A multiple of the number of devices used.

    Args:
        all_of_them: use every device, be it for copies.
    """
    if each < 1:
        raise ValueError(f"a device must hold at least one seed, not {each}")
    chunks = -(-n // (each * devices))
    together = -(-n // chunks)
    on_each = -(-together // devices)
    return on_each * (devices if all_of_them else -(-together // on_each))


def chunk_seeds(seeds: list[int], length: int) -> list[list[int]]:
    """Split seeds into chunks of one length, so that one compiled program serves them all.

    The last one is filled up by repeating its last seed (`unpadded` drops the copies).
    """
    chunks = [seeds[i : i + length] for i in range(0, len(seeds), length)]
    return [chunk + [chunk[-1]] * (length - len(chunk)) for chunk in chunks]


def unpadded(chunk: list[int]) -> int:
    """How many seeds of a chunk are not fillers."""
    return len(dict.fromkeys(chunk))


def dividing_devices(c: int, d: int) -> int:
    """The largest number of devices, at most d, that divides c seeds evenly."""
    return max(i for i in range(1, d + 1) if c % i == 0)


def seeds_held(run: Path, text: str = "") -> list[int]:
    """Those of a run's folder that a user names, or all of them.

    Raises ValueError for one that the folder has not, FileNotFoundError where it has none.
    """
    held = seeds_of(run)
    wanted = parse_seeds(text) if text else held
    for seed in wanted:
        if seed not in held:
            numbers = ", ".join(map(str, held[:8])) + (", ..." if len(held) > 8 else "")
            raise ValueError(f"--seeds: {run} holds no seed {seed}; it holds {numbers}")
    return wanted
