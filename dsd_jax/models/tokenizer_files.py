"""A tokenizer.json and the files beside it, read as transformers' CLIPTokenizerFast reads them.

Without transformers, whose import takes longer than all else that a prompt needs (5 s where PyTorch
is installed, too). What a hostile file could make run away is bounded before it is read.
"""

import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dsd_jax.models.entries import is_whole, shown
from dsd_jax.models.tensor_files import read_json

FAST, SETTINGS, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
# The special tokens of CLIP's class, which hold where no file names them.
START, END = "<|startoftext|>", "<|endoftext|>"
_DEFAULTS = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
           "mask_token")  # fmt: skip
_SIDES = ("right", "left")
_LEAST = 3  # start, end, and something between
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_MAX_DEPTH, _MAX_STEP = 12, 100_000  # of one of these: of its nesting, and characters


def read_fast(folder: Path) -> tuple[Any, dict]:
    """The `tokenizers.Tokenizer` of a folder with a tokenizer.json, and its settings.

    Settings are those of tokenizer_config.json, over CLIP's own; `pad_token` is a plain string.
    Raises ValueError for what cannot be read, or makes no sense.
    """
    import tokenizers

    content = read_json(folder / FAST)
    _check_steps(folder / FAST, content)
    settings = _settings(folder)
    with refusals(folder):
        reader = tokenizers.Tokenizer.from_file(str(folder / FAST))
        reader.add_tokens(_added(settings))
        reader.encode_special_tokens = bool(settings.get("split_special_tokens", False))
    if reader.get_vocab_size(with_added_tokens=False) == 0:
        raise ValueError(f"{folder / FAST} has no vocabulary")
    for side, part in (("padding_side", "padding"), ("truncation_side", "truncation")):
        own = getattr(reader, part) or {}
        found = settings.setdefault(side, own.get("direction", _SIDES[0]))
        if found not in _SIDES:
            raise ValueError(
                f"{folder / SETTINGS}: {side} has to be right or left, not {shown(found)}"
            )
    return reader, settings | {"pad_token": _text(settings["pad_token"])}


@contextlib.contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """Turns whatever the libraries of tokenizers raise into ValueErrors of one line."""
    try:
        with _without_panics():
            yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"{folder} holds no tokenizer that can be read: {why}") from error


@contextlib.contextmanager
def _without_panics() -> Iterator[None]:
    """Rust writes a panic, and where it was, to this process's stderr before Python knows of it.

    What is written there meanwhile is held back, and let go but for a panic.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        held: IO[bytes] | None = None
        with contextlib.suppress(OSError):  # there may be no stderr, or no room for a file
            held = stack.enter_context(tempfile.TemporaryFile())
            usual = os.dup(2)
            stack.callback(os.close, usual)
            os.dup2(held.fileno(), 2)
            stack.callback(_let_go, held, usual)
        try:
            yield
        except BaseException as error:
            if held and type(error).__name__ == "PanicException":
                held.truncate(0)
            raise


def _let_go(held: IO[bytes], usual: int) -> None:
    """Have stderr again as it was, with what was held back."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os.dup2(usual, 2)
    held.seek(0)
    while part := held.read(2**16):
        os.write(2, part)


def longest(file: Path, settings: dict) -> float:
    """The most tokens of a prompt, start and end included, that settings tell of.

    Raises ValueError for what is none.
    """
    most = settings.get("model_max_length")
    if most is None:
        return float("inf")
    if not (is_whole(most) or isinstance(most, float)) or not most >= _LEAST:
        raise ValueError(
            f"{file}: model_max_length needs a number from {_LEAST} on, got {shown(most)}"
        )
    return most


def _settings(folder: Path) -> dict:
    """Settings by name. Older folders say in special_tokens_map.json what others say here."""
    settings = _DEFAULTS.copy()
    if (folder / SETTINGS).is_file():
        settings |= _named_tokens(folder / SETTINGS)
    if "added_tokens_decoder" not in settings and (folder / SPECIAL).is_file():
        settings |= _named_tokens(folder / SPECIAL)
    longest(folder / SETTINGS, settings)
    if not isinstance(settings["pad_token"], str | dict):
        raise ValueError(f"{folder / SETTINGS} has no pad_token, which short prompts end with")
    return settings


def _named_tokens(file: Path) -> dict:
    """A file of settings. Raises ValueError for tokens in it that are none."""
    settings = read_json(file)
    several, decoder = "additional_special_tokens", "added_tokens_decoder"
    known = settings.get(decoder, {})
    if not isinstance(known, dict) or not all(
        re.fullmatch("[0-9]{1,9}", index) and isinstance(known[index], dict) for index in known
    ):
        raise ValueError(f"{file}: {decoder} needs tokens by their ids, got {shown(known)}")
    more = settings.get(several) or []
    if not isinstance(more, list):
        raise ValueError(f"{file}: {several} needs a list of tokens, got {shown(more)}")
    found = [(name, settings[name]) for name in _TOKENS if settings.get(name)]
    found += [(several, token) for token in more]
    found += [(decoder, token) for token in known.values()]
    for name, token in found:
        text = token.get("content") if isinstance(token, dict) else token
        if not isinstance(text, str):
            raise ValueError(f"{file}: {name} needs a token's text, got {shown(token)}")
    return settings


def _added(settings: dict) -> list:
    """Tokens that these settings add to those of tokenizer.json, in transformers' order."""
    decoder = settings.get("added_tokens_decoder", {})
    known = {int(index): _token(decoder[index]) for index in decoder}
    tokens = [known[index] for index in sorted(known)]
    named = [settings[name] for name in _TOKENS if settings.get(name)]
    named += settings.get("additional_special_tokens") or []
    names = {token.content for token in tokens}
    return tokens + [_token(token) for token in named if _text(token) not in names]


def _token(value: Any) -> Any:
    """An entry of the settings as `tokenizers.AddedToken`."""
    from tokenizers import AddedToken

    if isinstance(value, str):
        return AddedToken(value, special=True)
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    given = {name: value[name] for name in flags if name in value}
    return AddedToken(value["content"], special=value.get("special", True), **given)


def _text(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else str(token)


def _check_steps(file: Path, content: dict) -> None:
    """Raises ValueError for steps around the model that could take memory without bound."""
    for name in _STEPS:
        step = content.get(name)
        if len(json.dumps(step)) > _MAX_STEP:
            raise ValueError(f"{file}: {name} is longer than {_MAX_STEP} characters")
        level = [step]
        for _ in range(_MAX_DEPTH):
            for part in level:
                if isinstance(part, dict) and part.get("type") in ("Replace", "Prepend"):
                    text = part.get("content", part.get("prepend"))
                    if not isinstance(text, str) or len(text) > 1:
                        raise ValueError(f"{file}: {name} puts {shown(text)} in, which may grow")
            inner = [part.values() if isinstance(part, dict) else part for part in level
                     if isinstance(part, dict | list)]  # fmt: skip
            level = [member for members in inner for member in members]
        if level:
            raise ValueError(f"{file}: {name} is nested more than {_MAX_DEPTH} deep")
