"""From an object's caption and category to the prompts it is trained on.

Captions are short noun phrases without article: "log house with gray roof", "dark green street
lamp". Colour words fall into two sets: CHROMATIC ones are no longer true once the hue is rotated,
ACHROMATIC ones still are.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from dsd_jax.data.palettes import hue_rotate as hue_rotate
from dsd_jax.data.palettes import word_set
from dsd_jax.priors.view_words import VIEWS
from dsd_jax.priors.words import words_of

VIEW_PHRASES = VIEWS
CHROMATIC = word_set(
    "red orange yellow green blue purple pink brown teal turquoise cyan beige tan golden gold "
    "bronze brass cream mint olive reddish colorful rainbow blond blonde"
)
ACHROMATIC = word_set("white black gray grey silver")
COLOURS = CHROMATIC | ACHROMATIC

_MODIFIERS = word_set("dark light pale bright deep")
_COUNTS = word_set("two three four five six seven several many rows stairs")
_NOT_COLOURS = ("whipped cream", "ice cream", "cream puff", "mint ice", "white wine", "wine white")
_SINGULAR_S = ("ss", "us", "is")
_SINGULAR = word_set("gas lens chess canvas atlas triceratops")
_PREPOSITIONS = ("with", "in", "on", "of", "and", "without", "between")
_HEAD_END = re.compile(r",| (?:with|without|in|on|covering|spilling|between) ")
_LIKE_YOU = re.compile(r"(?:one|once|uni|use|usu|ute|uri|ute|eu|u-)")


def view_phrase(azimuth_deg: float, elevation_deg: float) -> str:
    """The view's name: overhead above 60 degrees; else front |azimuth| < 45, back > 135, or side.

    Any azimuth in degrees; 0 is the front.
    """
    if elevation_deg > 60:
        return "overhead view"
    away = abs((azimuth_deg + 180) % 360 - 180)
    return "front view" if away < 45 else "back view" if away > 135 else "side view"


def with_view(prompt: str, phrase: str) -> str:
    """ "a house" and "front view": "a house, front view"."""
    return f"{prompt}, {phrase}"


def with_article(phrase: str) -> str:
    """With "a" or "an" in front; unchanged where none can stand: plurals and counted things.

    "log house" -> "a log house", "urinal" -> "a urinal", "three rocks", "grey rocks with moss".
    """
    head = _head(phrase).split(" of ")[0].split()
    last = head[-1] if head else ""
    plural = last.endswith("s") and not last.endswith(_SINGULAR_S) and last not in _SINGULAR
    if not head or plural or head[0] in _COUNTS | {"a", "an", "the"}:
        return phrase
    vowel = phrase[0] in "aeiou" and not _LIKE_YOU.match(phrase)
    return f"{'an' if vowel else 'a'} {phrase}"


def without_colours(phrase: str, colours: Iterable[str] = COLOURS) -> str:
    """The phrase with its colours, their modifiers and what joins them taken out.

    "dark red dragon" -> "dragon", "red and white fish" -> "fish" (all the colours of a group go
    as soon as one of them is in `colours`), "candle in golden holder" -> "candle in holder",
    "hooded rogue in green" -> "hooded rogue". May be empty: "gold" -> "".
    """
    words, kept, i = phrase.split(), [], 0
    colours = frozenset(colours)
    while i < len(words):
        stop = _colour_group(words, i)
        group = [part for word in words[i:stop] for part in _parts(word)]
        if stop == i or not any(part in colours or part == "sand" for part in group):
            kept += words[i : max(stop, i + 1)]
        elif words[stop - 1].endswith(","):
            kept[-1:] = [kept[-1] + ","] if kept else []
        i = max(stop, i + 1)
    return _tidy(kept)


def colours_of(phrase: str) -> list[str]:
    """The colour words of a phrase in order: "dark red and white fish" -> red, white."""
    words = phrase.split()
    found, i = [], 0
    while i < len(words):
        stop = _colour_group(words, i)
        found += [p for word in words[i:stop] for p in _parts(word) if p in COLOURS]
        i = max(stop, i + 1)
    return found


def renamed(caption: str, name: str | None) -> str | None:
    """The caption with its only colour word, a chromatic one, replaced; else None.

    Modifiers go: "dark red dragon" and "blue" give "blue dragon".
    """
    found = colours_of(caption)
    if not name or len(found) != 1 or found[0] in ACHROMATIC:
        return None
    words = caption.split()
    start = next(i for i in range(len(words)) if _colour_group(words, i) > i)
    if "-" in words[start]:
        return None
    return " ".join([*words[:start], name, *words[_colour_group(words, start) :]])


def caption_variants(
    caption: str,
    *,
    recoloured: bool = False,
    new_colour: str | None = None,
    tint: str | None = None,
) -> list[str]:
    """Prompts made of the caption: see `variants`."""
    if tint:
        bases = [f"{tint} {without_colours(phrase)}".strip() for phrase in _shortened(caption)]
    else:
        true = without_colours(caption, CHROMATIC) if recoloured else caption
        true = (renamed(caption, new_colour) or true) if recoloured else true
        bases = [p for phrase in (true, without_colours(caption)) for p in _shortened(phrase)]
    spelt = [s for base in bases if base for s in (base, _other_spelling(base))]
    return _distinct([s for base in spelt for s in (with_article(base), base)])


def category_variants(category: str, *, tint: str | None = None) -> list[str]:
    """Prompts made of the category: see `variants`."""
    base = f"{tint} {category}" if tint else category
    return _distinct([with_article(base), base])


def variants(
    caption: str,
    category: str,
    *,
    recoloured: bool = False,
    new_colour: str | None = None,
    tint: str | None = None,
) -> list[str]:
    """All prompts that describe an object truly, without repetitions, in a fixed order.

    Caption and category, with and without article; the caption also without colours, without its
    tail ("log house with gray roof": "log house"), and in the other spelling of gray.

    Args:
        caption: of the object.
        category: of the object.
        recoloured: its hue is rotated: chromatic colour words are left out.
        new_colour: what the caption's only colour word has become, if recoloured and if that is
            clear (`palettes.rotated_name`).
        tint: name of the colour given to a colourless object; the caption's own colours go.
    """
    return _distinct(
        caption_variants(caption, recoloured=recoloured, new_colour=new_colour, tint=tint)
        + category_variants(category, tint=tint)
    )


def known_words(captions: Sequence[str], categories: Sequence[str]) -> dict[str, int]:
    """How many objects stand behind each word of their prompts, most first.

    The words of the views count as known; so do both spellings of gray.
    """
    count = Counter()
    for caption, category in zip(captions, categories, strict=True):
        count.update({w for prompt in variants(caption, category) for w in words_of(prompt)})
    count.update(dict.fromkeys({w for p in VIEW_PHRASES for w in words_of(p)}, len(captions)))
    return dict(sorted(count.items(), key=lambda pair: (-pair[1], pair[0])))


def save_known_words(path: str | Path, words: dict[str, int]) -> None:
    """Write `known_words` as JSON."""
    Path(path).write_text(json.dumps(words, ensure_ascii=False, indent=0) + "\n", "utf-8")


def _parts(word: str) -> list[str]:
    """ "orange-brown," -> orange, brown."""
    return word.strip(",").split("-")


def _is_colour(words: Sequence[str], i: int) -> bool:
    """Whether words[i] is a colour word, "red-roofed" and "cream-colored" included."""
    around = " ".join(words[max(i - 1, 0) : i + 2])
    if any(phrase in around for phrase in _NOT_COLOURS):
        return False
    if "orange" in words[i] and "tree" in words[i + 1 : i + 2] and _is_fruit(words):
        return False
    parts = _parts(words[i])
    return parts[0] in COLOURS or (parts[0] == "sand" and len(parts) > 1)


def _is_fruit(words: Sequence[str]) -> bool:
    """Whether "orange tree" is the one that bears oranges."""
    return "oranges" in words or "green orange" in " ".join(words)


def _colour_group(words: Sequence[str], i: int) -> int:
    """End of the group "dark blue", "red, white and green" that begins at i; i if none does."""
    j = i + 1 if words[i] in _MODIFIERS and i + 1 < len(words) else i
    if not _is_colour(words, j):
        return i
    end = j + 1
    while end < len(words):
        k = end + 1 if words[end] == "and" else end
        k = k + 1 if words[k : k + 1] and words[k] in _MODIFIERS else k
        if k >= len(words) or not _is_colour(words, k):
            break
        end = k + 1
    return end


def _tidy(words: list[str]) -> str:
    """Without prepositions that lost their noun, at the end, the start or before another one."""
    kept = []
    for word in words:
        if kept and word in _PREPOSITIONS and kept[-1] in _PREPOSITIONS:
            kept.pop()
        kept.append(word)
    while kept and kept[-1].strip(",") in _PREPOSITIONS:
        kept.pop()
    while kept and kept[0] in _PREPOSITIONS:
        kept.pop(0)
    return " ".join(kept).strip(" ,")


def _head(phrase: str) -> str:
    """What stands before the first preposition or comma."""
    return _HEAD_END.split(phrase)[0].strip()


def _shortened(phrase: str) -> list[str]:
    """The phrase, and without its tail."""
    return [phrase, _head(phrase)]


def _other_spelling(phrase: str) -> str:
    swap = {"gray": "grey", "grey": "gray"}
    return re.sub(r"gr[ae]y", lambda match: swap[match[0]], phrase)


def _distinct(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
