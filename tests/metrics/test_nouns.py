"""Which category a prompt asks for."""

import pytest

from dsd_jax.metrics.nouns import category_of, learn_nouns

CAPTIONS = [
    ("gray husky", "dog"),
    ("gray and white husky", "dog"),
    ("log house with gray roof", "house"),
    ("red brick house", "house"),
    ("palm tree", "tree"),
    ("street lamp", "street lamp"),
    ("table lamp", "lamp"),
    ("pile of gold coins", "coin"),
    ("pile of logs", "log"),
    ("gold bar", "gold bar"),
    ("chocolate bar", "food"),
    ("knight with sword", "knight"),
    ("iron sword", "sword"),
    ("red car", "car"),
    ("glass", "glass"),
]
NOUNS = learn_nouns(*zip(*CAPTIONS, strict=True))


@pytest.mark.parametrize(
    ("prompt", "category"),
    [
        ("a house", "house"),
        ("A RED House", "house"),
        ("log house with gray roof", "house"),
        ("a tree house", "house"),
        ("a house tree", "tree"),
        ("a husky", "dog"),
        ("two cars", "car"),
        ("glasses", "glass"),
        ("a glass", "glass"),
        ("knight with sword", "knight"),
        ("a sword", "sword"),
        ("a street lamp", "street lamp"),
        ("a big lamp", "lamp"),
        ("a photo of a car", "car"),
        ("a pile of coins", "coin"),
        ("a carrot", None),
        ("a bar", None),
        ("pile", None),
        ("", None),
        ("with", None),
        ("家", None),
    ],
)
def test_categories_of_prompts(prompt, category):
    assert category_of(prompt, NOUNS) == category


def test_categories_name_themselves_and_nothing_is_said_twice():
    assert all(NOUNS[category] == category for _, category in CAPTIONS)
    assert "brick house" not in NOUNS and "gray husky" not in NOUNS and "pile" not in NOUNS


def test_unclear_words_are_left_out():
    nouns = learn_nouns(["red ball", "blue ball", "tall ball"], ["toy", "sphere", "lamp"])
    assert "ball" not in nouns
    nouns = learn_nouns(["red ball", "blue ball", "tall ball"], ["toy", "toy", "lamp"])
    assert nouns["ball"] == "toy"
