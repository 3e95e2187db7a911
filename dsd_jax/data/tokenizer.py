"""A small byte-pair tokenizer in the files of transformers' CLIPTokenizer.

Ids, in CLIP's order: 256 byte symbols, the same ending a word (`</w>`), the merges, then
<|startoftext|> and <|endoftext|>, which is the highest id: CLIPTextModel pools there. Padding is
<|endoftext|> as well, as in Stable Diffusion 1. Any text is tokenised: what no merge covers falls
apart into bytes.
"""

import json
from collections.abc import Iterable
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(
    prompts: Iterable[str], folder: str | Path, vocab_size: int = 2048, max_length: int = 32
) -> int:
    """Learn merges from prompts (repeat the frequent ones) and write the tokenizer's files.

    Args:
        prompts: training text, one prompt an item.
        folder: gets vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json.
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
    return len(symbols)


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
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
