"""Files of prompts."""

import os
from collections.abc import Sequence
from pathlib import Path

from dsd_jax.cli import validate
from dsd_jax.files import read_text


def read(given: Sequence[str]) -> list[str]:
    """The prompts of the .txt files among `given`, one a line, and the others themselves.

    What follows a # is a comment. Raises OSError where a file cannot be read, or ValueError where
    it is no text or of another name, there is no prompt, or one comes twice.
    """
    found = []
    for text in given:
        lines = _lines(text) if Path(text).suffix.lower() == ".txt" else [text]
        if lines == [text] and os.sep in text and os.path.exists(text):
            raise ValueError(f"--prompts {text} is no .txt file, with a prompt a line")
        found += [line for line in (line.partition("#")[0].strip() for line in lines) if line]
    if not found:
        raise ValueError(f"--prompts {' '.join(given)} names no prompt")
    validate.once("prompts", found, repr)
    return found


def _lines(file: str) -> list[str]:
    if Path(file).is_dir():
        raise ValueError(f"--prompts {file} is a folder; give a file with a prompt a line")
    if not Path(file).is_file():
        raise FileNotFoundError(f"--prompts {file}: there is no such file")
    try:
        return read_text(file).splitlines()
    except ValueError as error:
        raise ValueError(f"--prompts {error}") from None
