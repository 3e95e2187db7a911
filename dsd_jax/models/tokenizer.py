"""Prompts as token ids, and a small byte-pair tokenizer in CLIPTokenizer's files (transformers).

Ids of that one, in CLIP's order: 256 byte symbols, the same ending a word (`</w>`), the merges,
then <|startoftext|> and <|endoftext|>, which is the highest id: CLIPTextModel pools there. Padding
is <|endoftext|> as well, as in Stable Diffusion 1. Any text is tokenised: what no merge covers
falls apart into bytes.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

START, END = "<|startoftext|>", "<|endoftext|>"
_FAST, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
# (n prompts, most) -> ids [n, l], padded, or cut, to the tokenizer's length or to `most` if shorter
Tokenizer = Callable[[list[str], int], Int[np.ndarray, "n l"]]
_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def read_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a folder in transformers' layout.

    A tokenizer.json is read without transformers, whose import takes longer than all else that a
    prompt needs (5 s where PyTorch is installed, too).

    Raises FileNotFoundError where there is none.
    """
    folder = Path(folder)
    if not (folder / "vocab.json").is_file():
        raise FileNotFoundError(f"{folder / 'vocab.json'} is missing: prompts need a tokenizer")
    if not all((folder / name).is_file() for name in (_FAST, _SETTINGS)):
        from transformers import CLIPTokenizer

        return of_transformers(CLIPTokenizer.from_pretrained(folder))
    import tokenizers

    reader = tokenizers.Tokenizer.from_file(str(folder / _FAST))
    settings = json.loads((folder / _SETTINGS).read_text("utf-8"))
    pad = settings.get("pad_token", END)
    pad = pad["content"] if isinstance(pad, dict) else pad

    def ids(prompts: list[str], most: int) -> Int[np.ndarray, "n l"]:
        length = min(most, settings.get("model_max_length", most))
        reader.enable_truncation(length)
        reader.enable_padding(length=length, pad_id=reader.token_to_id(pad), pad_token=pad)
        return np.asarray([found.ids for found in reader.encode_batch(list(prompts))], np.int32)

    return ids


def of_transformers(tokenizer: Any) -> Tokenizer:
    """What a tokenizer of transformers does, as a function."""

    def ids(prompts: list[str], most: int) -> Int[np.ndarray, "n l"]:
        length = min(most, tokenizer.model_max_length)
        found = tokenizer(list(prompts), padding="max_length", truncation=True, max_length=length)
        return np.asarray(found["input_ids"], np.int32)

    return ids


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

    (folder / _FAST).unlink(missing_ok=True)
    CLIPTokenizerFast.from_pretrained(folder).backend_tokenizer.save(str(folder / _FAST), False)


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
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(folder / _SETTINGS, config)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
