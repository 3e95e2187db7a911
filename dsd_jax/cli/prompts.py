"""Files of prompts."""

from collections.abc import Sequence
from pathlib import Path

from dsd_jax.files import slug


def read(given: Sequence[str]) -> list[str]:
    """The prompts of the .txt files among `given`, one a line, and the others themselves.

    What follows a # is a comment. Raises FileNotFoundError, or ValueError where there is no prompt
    or two would share a file (see `run_folder.slug`).
    """
    found = []
    for text in given:
        path = Path(text)
        if path.suffix == ".txt" and not path.is_file():
            raise FileNotFoundError(f"--prompts {text}: there is no such file")
        lines = path.read_text("utf-8").splitlines() if path.suffix == ".txt" else [text]
        found += [line for line in (line.partition("#")[0].strip() for line in lines) if line]
    if not found:
        raise ValueError(f"--prompts {' '.join(given)} names no prompt")
    for i, prompt in enumerate(found):
        if slug(prompt) in map(slug, found[:i]):
            raise ValueError(f"--prompts: {prompt!r} comes twice, or shares its file's name")
    return found
