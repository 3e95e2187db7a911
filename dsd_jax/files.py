"""Files that appear whole or not at all, their names, and JSON that anything can read."""

import contextlib
import hashlib
import json
import math
import os
import re
import time
import unicodedata
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it when the block ends well, else removed.

    Folders above `path` are made. The temporary name starts with a dot and keeps the suffix, which
    tells some writers the format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: str | Path, seconds: float = 0.0, below: bool = True) -> None:
    """Remove the temporary files of `atomic_path` that a killed process left.

    Args:
        seconds: how old they must be, where others may be writing.
        below: in the folders below, too.
    """
    for path in Path(folder).glob("**/.*" if below else ".*"):
        with contextlib.suppress(OSError):
            if _TEMPORARY.fullmatch(path.name) and time.time() - path.stat().st_mtime >= seconds:
                path.unlink()


# Older than any file that another process may still be writing.
OLD_SECONDS = 3600.0
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}(\.\w+)?")


def slug(text: str, limit: int = 48) -> str:
    """`text` as a name that is safe in every file system: a-z, 0-9 and single dashes.

    Accents are dropped and what has no ASCII form is left out; at most `limit` characters, cut at
    a word where possible; "prompt" when nothing is left.
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")
    if len(name) > limit:
        name = (name[: limit + 1].rpartition("-")[0] or name)[:limit]
    return name or "prompt"


def file_name(text: str) -> str:
    """The `slug`, with a hash where it leaves out more than spaces: another text, another name."""
    name = slug(text)
    return name if name.replace("-", " ") == text else f"{name}-{config_hash(text)}"


def config_hash(config: object) -> str:
    """Eight hexadecimal digits that depend on the values of `config`, not on the order of keys."""
    return hashlib.sha256(_dumps(config).encode()).hexdigest()[:8]


def shortened(said: object, limit: int = 300) -> str:
    """What is said, in one line of at most `limit` characters."""
    text = " ".join(str(said).split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def elided(said: object, limit: int = 1000) -> str:
    """What is said, in one line; of a long one the beginning, and the end, where the mend is."""
    text, end = " ".join(str(said).split()), limit // 4
    return text if len(text) <= limit else f"{text[: limit - end - 5]} ... {text[-end:]}"


def sha256_of(path: str | Path) -> str:
    """The checksum of a file, in hexadecimal digits. Raises OSError where it cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value: object) -> None:
    """Write `value` with sorted keys, atomically. See `plain` for what it may hold."""
    with atomic_path(path) as temporary:
        temporary.write_text(_dumps(value) + "\n", encoding="utf-8")


class Said(ValueError):
    """A whole line for the user, which `reading` leaves as it is."""


class Damaged(Said):
    """A file that a program wrote is not as it was written, which is said in one line, with a mend.

    Attributes:
        said: the line without the mend.
    """

    def __init__(self, path: str | Path, why: str):
        self.said = f"{path} is damaged: {why}"
        super().__init__(f"{self.said}; {AGAIN}")


# What mends most files of a run.
AGAIN = "the command that made it makes it again"
# What reading something that is not as it was written gives rise to.
_WRONG = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """What is missing or wrong in what a file holds is said as `Damaged`."""
    try:
        yield
    except Said:
        raise
    except _WRONG as error:
        raise Damaged(path, _why(error)) from None


def _why(error: Exception) -> str:
    """What is wrong with a file's content, in words rather than Python's."""
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON from line {error.lineno}, column {error.colno} on"
    if isinstance(error, UnicodeDecodeError):
        return "it is no text in UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, KeyError):
        return f"it does not say {shortened(error.args[0], 80)}"
    if isinstance(error, ValueError):
        return shortened(error)
    return "an entry of it is missing, unknown, or of another kind"


def is_text(text: str) -> bool:
    """Whether every character is one: bytes of a command line that are not UTF-8 become none."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_text(path: str | Path) -> str:
    """What a text file holds, without the mark that some editors put at its start.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8; says what it seems to be, and how to mend it.
    """
    data = Path(path).read_bytes()
    # ASCII in two or four bytes a letter is UTF-8 as well, of which half and more are 0.
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff") or len(data) / 4 < data.count(0) < 0.8 * len(data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        wide, text = wide or 0 in data, None
    if wide or text is None:
        kind = "UTF-16" if wide else "Latin-1 or another of one byte a letter"
        raise ValueError(f"{path} is not UTF-8 but, it seems, {kind}; save it as UTF-8")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{path} holds a NUL byte in line {line}, which is no text; take it out")
    return text


def read_json(path: str | Path, **kinds: type | UnionType) -> dict[str, Any]:
    """The mapping that a file of a run holds.

    Args:
        kinds: names that it must have, and the type of each.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it cannot be read, is no mapping, or lacks one of the names; says where.
    """
    path = Path(path)
    try:
        with reading(path):
            found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} does not exist; give the folder of a finished run") from (
            None
        )
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; see its permissions") from None
    if not isinstance(found, dict):
        raise Damaged(path, "it holds no mapping")
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            raise Damaged(path, f"it does not say {name}")
    return found


def plain(value: object) -> object:
    """`value` as JSON types: arrays become lists or numbers, paths strings, nan and inf None.

    Raises TypeError for what has no such form.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist())
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _dumps(value: object) -> str:
    return json.dumps(plain(value), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
