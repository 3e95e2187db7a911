"""Which category a prompt asks for: "log house with gray roof" -> house, "a husky" -> dog.

The head of a phrase (what stands before the first preposition) ends with its noun. Captions of
objects whose category is known teach what each noun, or pair or triple of last words, stands for.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

# Words that end the head of a phrase: prepositions, and participles that act as such.
PREPOSITIONS = frozenset((
    "at", "by", "carrying", "for", "from", "full", "holding", "in", "inside", "made", "near", "of",
    "on", "over", "pointing", "to", "under", "wearing", "with", "without",
))  # fmt: skip
ARTICLES = frozenset(("a", "an", "the", "some"))
LONGEST = 3
PURITY = 0.6


def learn_nouns(captions: Sequence[str], categories: Sequence[str]) -> dict[str, str]:
    """{noun phrase: category}, from captions and their objects' categories.

    A phrase counts when at least 60 % of the captions that end their head with it agree; the name
    of a category votes for itself once per object. Phrases that say no more than their own last
    words are left out.
    """
    votes: dict[str, Counter] = defaultdict(Counter)
    for caption, category in zip(captions, categories, strict=True):
        head = _head(_words(caption))
        for phrase in _endings(head, len(head)):
            votes[phrase][category] += 1
        votes[category][category] += 1
    nouns: dict[str, str] = {}
    for phrase in sorted(votes, key=lambda phrase: (phrase.count(" "), phrase)):
        (category, count), total = votes[phrase].most_common(1)[0], votes[phrase].total()
        shorter = next((nouns[p] for p in _endings(phrase.split())[1:] if p in nouns), None)
        if count >= PURITY * total and category != shorter:
            nouns[phrase] = category
    return nouns | {category: category for category in set(categories)}


def category_of(prompt: str, nouns: dict[str, str]) -> str | None:
    """The category that `prompt` asks for, or None if it names nothing known.

    The last known phrase of the head wins, the longest of those that end there; where the head
    has none, the whole prompt is searched in the same way. Plurals in -s and -es are understood.
    """
    words = _words(prompt)
    for part in (_head(words), words):
        for end in range(len(part), 0, -1):
            for phrase in _endings(part, end):
                for form in (phrase, phrase.removesuffix("s"), phrase.removesuffix("es")):
                    if form in nouns:
                        return nouns[form]
    return None


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in ARTICLES]


def _head(words: list[str]) -> list[str]:
    stop = next((i for i, word in enumerate(words) if i and word in PREPOSITIONS), len(words))
    return words[:stop]


def _endings(words: list[str], end: int | None = None) -> list[str]:
    """The phrases of 3, 2 and 1 words that end before position `end`, longest first."""
    end = len(words) if end is None else end
    return [" ".join(words[end - n : end]) for n in range(min(LONGEST, end), 0, -1)]
