"""The tokenizer's files as transformers reads them."""

import json
import shutil

import numpy as np
import pytest

from dsd_jax.models.tokenizer import of_transformers, read_tokenizer, train_tokenizer
from dsd_jax.priors import EMBEDDED

PROMPTS = ["a red house, front view", "a log house", "a husky", "house"] * 5 + ["three robots"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    assert train_tokenizer(PROMPTS, folder, vocab_size=534, max_length=16) == 534
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


def test_special_tokens_are_the_highest_ids(tokenizer):
    assert len(tokenizer) == 534
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (532, 533)
    assert tokenizer.pad_token_id == 533
    assert tokenizer.model_max_length == 16


def test_frequent_words_are_single_tokens(tokenizer):
    found = tokenizer.tokenize("A House, front  view")
    assert found == ["a</w>", "house</w>", ",</w>", "front</w>", "view</w>"]


def test_prompts_are_padded_and_cut(tokenizer):
    ids = tokenizer(["house", "house " * 40], padding="max_length", truncation=True)["input_ids"]
    house = tokenizer.convert_tokens_to_ids("house</w>")
    assert ids == [[532, house, *[533] * 14], [532, *[house] * 14, 533]]


def plain(text):
    """Without white space and the null character, which transformers 4 drops and 5 keeps."""
    return "".join(text.replace("\x00", "").split())


@pytest.mark.parametrize("text", ["a log house", "naïve 漢字 🚗", "überzüchtet", "\x00 tab\tx", ""])
def test_any_text_makes_the_round_trip(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert max(ids) <= 533 and None not in ids
    again = tokenizer.decode(ids, skip_special_tokens=True)
    assert plain(again) == plain(text.lower())


def test_files_are_in_clips_order(folder):
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    assert sorted(vocabulary.values()) == list(range(534))
    assert (vocabulary["!"], vocabulary["!</w>"], vocabulary["a"]) == (0, 256, 64)
    merges = (folder / "merges.txt").read_text("utf-8").splitlines()
    assert merges[0] == "#version: 0.2" and len(merges) == 1 + 534 - 512 - 2
    assert vocabulary["".join(merges[1].split())] == 512


def test_few_prompts_make_a_smaller_vocabulary(tmp_path):
    assert train_tokenizer(["a cat"], tmp_path, vocab_size=2048) == 514 + 2
    with pytest.raises(ValueError, match="514"):
        train_tokenizer(PROMPTS, tmp_path, vocab_size=500)


@pytest.mark.parametrize("own", [True, False])
def test_tokenizer_json_says_what_the_other_files_say(folder, tmp_path, own):
    """Of a tokenizer just made, and of Toybox's. (The slow tokenizer of transformers 4 differs.)"""
    from transformers import CLIPTokenizerFast

    folder = folder if own else EMBEDDED["toybox"] / "tokenizer"
    texts = [
        "A  Red\tHOUSE, côté",
        "İ <|startoftext|> 3rd it's",
        "",
        "\x00 漢字 🚗 ﬁ½",
        "house " * 40,
    ]
    other = shutil.copytree(folder, tmp_path / "other", ignore=lambda *_: ["tokenizer.json"])
    theirs = of_transformers(CLIPTokenizerFast.from_pretrained(other))
    for most in (77, 9):
        ids = read_tokenizer(folder)(texts, most)
        np.testing.assert_array_equal(ids, theirs(texts, most))
    assert ids.shape == (5, 9)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="prompts need a tokenizer"):
        read_tokenizer(tmp_path)
