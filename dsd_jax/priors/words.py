"""Words of prompts: which of them a prior has seen."""

import re
from collections.abc import Iterable

_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")


def words_of(text: str) -> list[str]:
    """Lower-case words of a text, hyphenated ones also in their parts, without repetitions."""
    whole = _WORD.findall(text.lower())
    return list(
        dict.fromkeys([part for w in whole for part in (w, *(w.split("-") if "-" in w else ()))])
    )


def unknown_words(prompt: str, words: Iterable[str]) -> list[str]:
    """Words of a prompt that no training prompt held; a known word's plain plural is known."""
    known = set(words)
    return [
        w
        for w in words_of(prompt)
        if w not in known and not (w.endswith("s") and w[:-1] in known) and f"{w}s" not in known
    ]
