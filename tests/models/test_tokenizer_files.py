"""tokenizer_files.py against transformers' own reading of folders that transformers wrote."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from dsd_jax.models import tokenizer_files
from dsd_jax.models.tokenizer import of_transformers, read_tokenizer, train_tokenizer

TEXTS = ["a red house!", "", "<cat> houses <|startoftext|> it's !", "house " * 40, "İ 漢字 🚗"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """As `train_tokenizer` writes it: 529 ids, at most 16 of them in a prompt."""
    folder = tmp_path_factory.mktemp("plain")
    train_tokenizer(["a red house, front view", "a log house"] * 5, folder, 534, 16)
    return folder


def edit(file: Path, **entries):
    """Change entries of a JSON file; those that are `...` go."""
    content = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    content = {k: v for k, v in (content | entries).items() if v is not ...}
    file.write_text(json.dumps(content))


def written(plain, folder, **options):
    """The folder that transformers writes of a tokenizer with `options`."""
    from transformers import CLIPTokenizerFast

    CLIPTokenizerFast.from_pretrained(plain, **options).save_pretrained(folder)


def padded_otherwise(plain, folder):
    """Row 5 of the list: an older folder, whose special_tokens_map.json alone knows the padding."""
    written(plain, folder)
    edit(folder / "tokenizer_config.json", added_tokens_decoder=..., pad_token=...)
    edit(folder / "special_tokens_map.json", pad_token="!")


def with_padding(plain, folder):
    """tokenizer.json has padding and truncation of its own, as after a call."""
    from transformers import CLIPTokenizerFast

    tokenizer = CLIPTokenizerFast.from_pretrained(plain)
    tokenizer(["a"], padding="max_length", truncation=True, max_length=9)
    tokenizer.save_pretrained(folder)
    edit(folder / "tokenizer_config.json", pad_token="!")


def with_words(plain, folder):
    """Textual inversion: tokens that are no special ones, beyond the vocabulary."""
    from transformers import CLIPTokenizerFast

    tokenizer = CLIPTokenizerFast.from_pretrained(plain)
    tokenizer.add_tokens(["<cat>", "red"])
    tokenizer.save_pretrained(folder)


def as_version_5(plain, folder):
    written(plain, folder)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)


def without_settings(plain, folder):
    as_version_5(plain, folder)
    (folder / "tokenizer_config.json").unlink()


def padded_by_a_dictionary(plain, folder):
    written(plain, folder)
    token = {"content": "!", "lstrip": True, "normalized": False, "rstrip": False}
    edit(folder / "tokenizer_config.json", pad_token=token | {"__type": "AddedToken"})


def named_twice(plain, folder):
    """tokenizer_config.json, which knows its tokens, goes before special_tokens_map.json."""
    written(plain, folder)
    edit(folder / "special_tokens_map.json", pad_token="!")


WRITERS = {
    "plain": written,
    "pad": lambda plain, folder: written(plain, folder, pad_token="!"),
    "pad beyond": lambda plain, folder: written(plain, folder, pad_token="<pad>"),
    "left": lambda plain, folder: written(plain, folder, padding_side="left"),
    "cut left": lambda plain, folder: written(plain, folder, truncation_side="left"),
    "no length": lambda plain, folder: written(plain, folder, model_max_length=10**30),
    "special as text": lambda plain, folder: written(plain, folder, split_special_tokens=True),
    "old pad": padded_otherwise,
    "own padding": with_padding,
    "words": with_words,
    "version 5": as_version_5,
    "no settings": without_settings,
    "dictionary": padded_by_a_dictionary,
    "named twice": named_twice,
}


@pytest.mark.parametrize("name", WRITERS)
def test_ids_are_those_of_transformers(plain, tmp_path, name):
    from transformers import CLIPTokenizerFast

    WRITERS[name](plain, tmp_path)
    theirs = of_transformers(CLIPTokenizerFast.from_pretrained(tmp_path))
    ours = read_tokenizer(tmp_path)
    for most in (77, 9):
        np.testing.assert_array_equal(ours(TEXTS, most), theirs(TEXTS, most))
    assert ours.counts(TEXTS) == theirs.counts(TEXTS)


def test_another_padding_is_another_id(plain, tmp_path):
    padded_otherwise(plain, tmp_path)
    assert read_tokenizer(plain)(["a"], 9)[0, -1] == 528
    assert read_tokenizer(tmp_path)(["a"], 9)[0, -1] == 0


def nested(depth):
    step = {"type": "NFC"}
    for _ in range(depth):
        step = {"type": "Sequence", "normalizers": [step]}
    return step


GROWS = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"}
GROWING = {"type": "Sequence", "normalizers": [GROWS] * 20}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "", r"tokenizer\.json is empty"),
        ("tokenizer.json", "{}", "holds no tokenizer that can be read: "),
        ("tokenizer.json", "[]", "has to hold named entries"),
        ("tokenizer.json", "[" * 10**5, "is nested too deeply"),
        ("tokenizer.json", {"model": None}, "holds no tokenizer that can be read: "),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {}, "merges": []}}, "no vocabulary"),
        ("tokenizer.json", {"normalizer": nested(20)}, "normalizer is nested more than 12 deep"),
        (
            "tokenizer.json",
            {"normalizer": GROWING},
            "grow",
        ),
        ("tokenizer.json", {"decoder": "a" * 10**6}, "decoder is longer than"),
        ("tokenizer_config.json", "null", "has to hold named entries, got None"),
        (
            "tokenizer_config.json",
            {"model_max_length": 0},
            "needs a number from 3",
        ),
        ("tokenizer_config.json", {"model_max_length": "32"}, "model_max_length .* got '32'"),
        ("tokenizer_config.json", {"pad_token": None}, "has no pad_token"),
        ("tokenizer_config.json", {"padding_side": "top"}, "padding_side has to be right or left"),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, r"by their ids, got \[1\]"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": "a"}}, "by their ids, got {'1'"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"-1": {"content": "a"}}},
            "added_tokens_decoder needs tokens by their ids, got {'-1'",
        ),
        ("tokenizer_config.json", {"additional_special_tokens": "abc"}, "needs a list .* 'abc'"),
        ("tokenizer_config.json", {"bos_token": {"a": 1}}, "bos_token needs a token's text, got {"),
    ],
)
def test_bad_files_are_named(plain, tmp_path, name, content, message):
    folder = Path(shutil.copytree(plain, tmp_path / "bad"))
    if isinstance(content, str):
        (folder / name).write_text(content)
    else:
        edit(folder / name, **content)
    with pytest.raises(ValueError, match=message) as error:
        read_tokenizer(folder)
    assert "\n" not in str(error.value)


def splitting(pattern):
    """A step that cuts words out by a regular expression."""
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    return {"type": "Sequence", "pretokenizers": [step]}


@pytest.mark.parametrize("pattern", ["(a+)+$", "(", "*a", r"\p{Foo}", r"(?<n>a|\g<n>b)"])
def test_patterns_that_cannot_be_matched_are_one_line(plain, tmp_path, capfd, pattern):
    """Of which Rust writes a panic, and where it was, by itself."""
    folder = Path(shutil.copytree(plain, tmp_path / "bad"))
    edit(folder / "tokenizer.json", pre_tokenizer=splitting(pattern))
    with pytest.raises(ValueError, match="holds no tokenizer that can be read: Onig") as error:
        read_tokenizer(folder)(["a" * 40 + "b"], 9)
    assert "\n" not in str(error.value) and capfd.readouterr() == ("", "")


def test_what_others_write_to_stderr_meanwhile_is_not_lost(tmp_path, capfd):
    with pytest.raises(ValueError, match="another"), tokenizer_files.refusals(tmp_path):
        os.write(2, b"said by a library\n")
        raise KeyError("another")
    with tokenizer_files.refusals(tmp_path):
        os.write(2, b"and later\n")
    assert capfd.readouterr().err == "said by a library\nand later\n"


def test_a_token_without_text_in_an_older_folder_is_named(plain, tmp_path):
    padded_otherwise(plain, tmp_path)
    edit(tmp_path / "special_tokens_map.json", pad_token={"content": None})
    with pytest.raises(ValueError, match=r"special_tokens_map\.json: pad_token needs a token's te"):
        read_tokenizer(tmp_path)


def test_bad_files_without_tokenizer_json_are_named(plain, tmp_path):
    folder = Path(shutil.copytree(plain, tmp_path / "bad"))
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text('{"a</w>": "b"}')
    with pytest.raises(ValueError, match="holds no tokenizer that can be read"):
        read_tokenizer(folder)(["a"], 9)


def test_the_longest_beginning_ends_with_a_word(plain):
    tokenizer = read_tokenizer(plain)
    prompt, ending = "a red house a red house a red house a red house", ", front view"
    start = tokenizer.beginning(prompt, [ending], 77)
    assert start == "a red house a red house a red house a red"  # 11 and 3, start and end: 16
    assert tokenizer.counts([start + ending, f"{start} house{ending}"]) == [16, 17]
    assert tokenizer.beginning("a red house", [ending], 77) == "a red house"
    assert tokenizer.beginning("x" * 100, [ending], 77) == "x" * 11
    assert tokenizer.beginning(prompt, [ending], 4) == prompt
    assert tokenizer.beginning(prompt, [""], 5) == "a red house"
