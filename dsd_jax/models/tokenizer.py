"""Prompts as token ids, and a small byte-pair tokenizer in CLIPTokenizer's files (transformers).

Ids of that one, in CLIP's order: 256 byte symbols, the same ending a word (`</w>`), the merges,
then <|startoftext|> and <|endoftext|>, which is the highest id: CLIPTextModel pools there. Padding
is <|endoftext|> as well, as in Stable Diffusion 1. Any text is tokenised: what no merge covers
falls apart into bytes.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from dsd_jax.models.tensor_files import read_json
from dsd_jax.models.tokenizer_files import (
    END,
    FAST,
    SETTINGS,
    SPECIAL,
    START,
    longest,
    read_fast,
    refusals,
)

_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class Tokenizer:
    """Prompts as token ids; called, (n prompts, most) -> ids [n, l], padded or cut to l tokens.

    l is `most`, or `longest` if that is less.

    Attributes:
        ids: (n prompts, l) -> ids [n, l].
        counts: n prompts -> how many tokens each has uncut, start and end included.
        longest: the most tokens that the tokenizer's own settings allow.
    """

    ids: Callable[[list[str], int], Int[np.ndarray, "n l"]]
    counts: Callable[[list[str]], list[int]]
    longest: float = float("inf")

    def __call__(self, prompts: list[str], most: int) -> Int[np.ndarray, "n l"]:
        return self.ids(list(prompts), self.length(most))

    def length(self, most: int) -> int:
        """How many tokens a prompt has, padded or cut, where the encoder takes `most`."""
        return int(min(most, self.longest))

    def beginning(self, prompt: str, endings: Sequence[str], most: int) -> str:
        """The longest beginning of a prompt that leaves every one of `endings` uncut after it.

        It ends with a whole word, where there is room for one. The prompt itself where the endings
        alone do not fit.
        """
        length = self.length(most)

        def fits(start: str) -> bool:
            return max(self.counts([start + ending for ending in endings])) <= length

        if fits(prompt) or not fits(""):
            return prompt
        words = [0, *(word.end() for word in re.finditer(r"\S+", prompt))]
        end = _last(words, lambda end: fits(prompt[:end]))
        if end == 0:
            end = _last(range(words[1] + 1), lambda end: fits(prompt[:end]))
        return prompt[:end]


def _last(places: Sequence[int], holds: Callable[[int], bool]) -> int:
    """The last of rising places at which `holds` is true, by bisection; it is at the first."""
    low, high = 0, len(places)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(places[middle]) else (low, middle)
    return places[low]


def check_ids(ids: Int[np.ndarray, "n l"], vocab_size: int, folder: Path) -> None:
    """Raises ValueError for ids that a text encoder of `vocab_size` does not know."""
    low, high = (int(ids.min()), int(ids.max())) if ids.size else (0, 0)
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer gives id {high if high >= vocab_size else low}, and the text "
            f"encoder knows 0 to {vocab_size - 1}: they are of different models"
        )


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether files of these names make a tokenizer."""
    return FAST in (names := set(names)) or {"vocab.json", "merges.txt"} <= names


def read_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a folder in transformers' layout.

    Of a tokenizer.json, with tokenizer_config.json and special_tokens_map.json where they are
    there, or of vocab.json and merges.txt.

    Raises FileNotFoundError where there is none, ValueError for one that cannot be read.
    """
    folder = Path(folder)
    if not has_tokenizer(path.name for path in folder.glob("*.*")):
        raise FileNotFoundError(
            f"{folder} holds neither {FAST} nor vocab.json and merges.txt: prompts need a tokenizer"
        )
    if not (folder / FAST).is_file():
        for name in ("vocab.json", SETTINGS, SPECIAL):
            if (folder / name).is_file():
                read_json(folder / name)
        return _read_slow(folder)
    reader, settings = read_fast(folder)
    pad = settings["pad_token"]

    def encoded(prompts: list[str]) -> list[list[int]]:
        with refusals(folder):
            return [found.ids for found in reader.encode_batch(prompts)]

    def ids(prompts: list[str], length: int) -> Int[np.ndarray, "n l"]:
        reader.enable_truncation(length, direction=settings["truncation_side"])
        reader.enable_padding(
            length=length,
            pad_id=reader.token_to_id(pad),
            pad_token=pad,
            direction=settings["padding_side"],
        )
        return np.asarray(encoded(prompts), np.int32)

    def counts(prompts: list[str]) -> list[int]:
        reader.no_truncation()
        reader.no_padding()
        return [len(found) for found in encoded(prompts)]

    return Tokenizer(ids, counts, longest(folder / SETTINGS, settings))


def _read_slow(folder: Path) -> Tokenizer:
    """`read_tokenizer` of vocab.json and merges.txt, which transformers knows how to read."""

    def guarded(function: Callable) -> Callable:
        def call(*args):
            with refusals(folder):
                return function(*args)

        return call

    with refusals(folder):
        from transformers import CLIPTokenizer

        theirs = of_transformers(CLIPTokenizer.from_pretrained(folder))
    return Tokenizer(guarded(theirs.ids), guarded(theirs.counts), theirs.longest)


def of_transformers(tokenizer: Any) -> Tokenizer:
    """A tokenizer of transformers as ours."""

    def ids(prompts: list[str], length: int) -> Int[np.ndarray, "n l"]:
        found = tokenizer(prompts, padding="max_length", truncation=True, max_length=length)
        return np.asarray(found["input_ids"], np.int32)

    def counts(prompts: list[str]) -> list[int]:
        return [len(found) for found in tokenizer(prompts, verbose=False)["input_ids"]]

    return Tokenizer(ids, counts, tokenizer.model_max_length)


def train_tokenizer(
    prompts: Iterable[str], folder: str | Path, vocab_size: int = 2048, max_length: int = 32
) -> int:
    """Learn merges from prompts (repeat the frequent ones) and write the tokenizer's files.

    Args:
        prompts: training text, one prompt an item.
        folder: gets vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json, and
            tokenizer.json, which says the same to the library `tokenizers`.
        vocab_size: most ids there may be; fewer if the prompts hold nothing left to merge.
        max_length: tokens of a prompt, start and end included.

    Returns:
        The number of ids.

    Raises:
        ValueError: vocab_size has no room for the alphabet (514).
    """
    alphabet = _alphabet()
    room = vocab_size - 2 * len(alphabet) - 2
    if room < 0:
        raise ValueError(f"vocab_size {vocab_size} is too small: bytes alone need 514")
    merges = _learn_merges(prompts, alphabet, room)
    symbols = [*alphabet, *(f"{s}</w>" for s in alphabet), *map("".join, merges), START, END]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "vocab.json", {symbol: i for i, symbol in enumerate(symbols)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    _write_settings(folder, len(symbols), max_length)
    write_fast(folder)
    return len(symbols)


def write_fast(folder: Path) -> None:
    """tokenizer.json, from the other files."""
    from transformers import CLIPTokenizerFast  # type: ignore

    (folder / FAST).unlink(missing_ok=True)
    CLIPTokenizerFast.from_pretrained(folder).backend_tokenizer.save(str(folder / FAST), False)


def _learn_merges(prompts: Iterable[str], alphabet: list[str], count: int) -> list[tuple[str, str]]:
    """The first `count` merges of byte-pair encoding, most frequent first."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    model = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    model.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=3 * len(alphabet) + count,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    model.train_from_iterator(prompts, trainer)
    merges = json.loads(model.to_str())["model"]["merges"]
    return [tuple(pair) for pair in merges[:count]]


def _alphabet() -> list[str]:
    """One printable character for each of the 256 bytes, in the order of CLIP's vocabulary.

    Printable Latin-1 characters stand for themselves, the other bytes for characters from U+0100.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(0x100 + k) for k in range(256 - len(printable))]


def _write_settings(folder: Path, size: int, max_length: int) -> None:
    """tokenizer_config.json and special_tokens_map.json."""
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {
        "bos_token": {"content": START, **flags},
        "eos_token": {"content": END, **flags},
        "pad_token": END,
        "unk_token": {"content": END, **flags},
    }
    decoder = {
        str(size - 2 + k): {"content": token, **flags, "special": True}
        for k, token in enumerate((START, END))
    }
    config = {
        "added_tokens_decoder": decoder,
        "bos_token": START,
        "clean_up_tokenization_spaces": False,
        "do_lower_case": True,
        "eos_token": END,
        "errors": "replace",
        "model_max_length": max_length,
        "pad_token": END,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": END,
    }
    _write_json(folder / SPECIAL, special)
    _write_json(folder / SETTINGS, config)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
