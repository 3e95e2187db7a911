"""Captions worked by hand."""

import json

import pytest

from dsd_jax.data import captions
from dsd_jax.data.captions import CHROMATIC
from dsd_jax.priors.words import unknown_words


@pytest.mark.parametrize(
    ("caption", "none", "hue_free"),
    [
        ("log house with gray roof", "log house with roof", "log house with gray roof"),
        ("dark red dragon", "dragon", "dragon"),
        ("red and white fish", "fish", "fish"),
        ("black and white cow", "cow", "black and white cow"),
        (
            "bed with black and white blanket",
            "bed with blanket",
            "bed with black and white blanket",
        ),
        ("olive green army tank", "army tank", "army tank"),
        ("hooded rogue in green", "hooded rogue", "hooded rogue"),
        ("open treasure chest with gold", "open treasure chest", "open treasure chest"),
        ("candle in golden holder", "candle in holder", "candle in holder"),
        ("red-roofed house with stone tower", "house with stone tower", "house with stone tower"),
        ("small cream-colored crate", "small crate", "small crate"),
        ("orange-brown banner", "banner", "banner"),
        ("large white jar, blue lid", "large jar, lid", "large white jar, lid"),
        ("white ice cream truck", "ice cream truck", "white ice cream truck"),
        ("frappe with whipped cream", "frappe with whipped cream", "frappe with whipped cream"),
        ("bottle of white wine", "bottle of white wine", "bottle of white wine"),
        ("orange tree with oranges", "orange tree with oranges", "orange tree with oranges"),
        ("orange autumn tree", "autumn tree", "autumn tree"),
        ("mint ice cream scoop", "mint ice cream scoop", "mint ice cream scoop"),
        ("light wooden chair", "light wooden chair", "light wooden chair"),
        ("yellow traffic light", "traffic light", "traffic light"),
        (
            "man in blue t-shirt and shorts",
            "man in t-shirt and shorts",
            "man in t-shirt and shorts",
        ),
        ("gold", "", ""),
    ],
)
def test_colour_words_are_taken_out(caption, none, hue_free):
    assert captions.without_colours(caption) == none
    assert captions.without_colours(caption, CHROMATIC) == hue_free


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("log house", "a log house"),
        ("open book", "an open book"),
        ("urinal", "a urinal"),
        ("one-story shop", "a one-story shop"),
        ("umbrella", "an umbrella"),
        ("short green grass", "a short green grass"),
        ("cactus with pink flowers", "a cactus with pink flowers"),
        ("dark gray triceratops", "a dark gray triceratops"),
        ("stack of gold coins", "a stack of gold coins"),
        ("grey rocks with moss", "grey rocks with moss"),
        ("three blue banners", "three blue banners"),
        ("two rows of wheat", "two rows of wheat"),
        ("a dog", "a dog"),
    ],
)
def test_articles(phrase, expected):
    assert captions.with_article(phrase) == expected


def test_variants_of_a_caption():
    assert captions.variants("log house with gray roof", "house") == [
        "a log house with gray roof",
        "log house with gray roof",
        "a log house with grey roof",
        "log house with grey roof",
        "a log house",
        "log house",
        "a log house with roof",
        "log house with roof",
        "a house",
        "house",
    ]


def test_variants_once_recoloured():
    found = captions.variants("dark red dragon", "dragon", recoloured=True)
    assert found == ["a dragon", "dragon"]
    found = captions.variants("dark red dragon", "dragon", recoloured=True, new_colour="blue")
    assert found == ["a blue dragon", "blue dragon", "a dragon", "dragon"]
    found = captions.variants("white rock", "rock", recoloured=True)
    assert found == ["a white rock", "white rock", "a rock", "rock"]


def test_variants_of_a_tinted_object():
    found = captions.variants("small white dog with bone", "dog", tint="orange")
    assert found == [
        "an orange small dog with bone",
        "orange small dog with bone",
        "an orange small dog",
        "orange small dog",
        "an orange dog",
        "orange dog",
    ]


def test_only_an_unambiguous_colour_is_renamed():
    assert captions.renamed("house with dark red roof", "blue") == "house with blue roof"
    assert captions.renamed("red and blue flag", "green") is None
    assert captions.renamed("white house", "green") is None
    assert captions.renamed("red-roofed house", "green") is None
    assert captions.renamed("red house", None) is None
    assert captions.colours_of("dark red and white fish with gold fins") == ["red", "white", "gold"]


@pytest.mark.parametrize(
    ("azimuth", "elevation", "phrase"),
    [
        (0, 0, "front view"),
        (-44, 60, "front view"),
        (315.5, 0, "front view"),
        (46, 0, "side view"),
        (-90, 0, "side view"),
        (134, 0, "side view"),
        (136, 0, "back view"),
        (-180, 45, "back view"),
        (540, 45, "back view"),
        (0, 61, "overhead view"),
    ],
)
def test_view_phrases(azimuth, elevation, phrase):
    assert captions.view_phrase(azimuth, elevation) == phrase
    assert captions.with_view("a house", phrase) == f"a house, {phrase}"


def test_known_and_unknown_words(tmp_path):
    words = captions.known_words(["gray husky", "red three-seat sofa"], ["dog", "sofa"])
    assert words["husky"] == words["dog"] == words["grey"] == words["seat"] == 1
    assert words["a"] == words["front"] == 2
    assert list(words.values()) == sorted(words.values(), reverse=True)
    captions.save_known_words(tmp_path / "words.json", words)
    assert json.loads((tmp_path / "words.json").read_text("utf-8")) == words
    prompt = "A Samurai, two DOGS and a three-seat sofa; front view"
    assert unknown_words(prompt, words) == ["samurai", "two", "and"]
