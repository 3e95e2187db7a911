"""Scores of a prompt's objects, on features whose answer is known."""

import numpy as np
import pytest

from dsd_jax.metrics import bank as banks
from dsd_jax.metrics import scores


def test_pairs_worked_by_hand():
    distance = np.array([[1.0, 4, 5], [2, 3, 7], [6, 6, 6]])
    found = scores.by_pairs(distance)
    # The first is nearest to its own; the second to the first's; the third to none more.
    assert found == {"own": pytest.approx(10 / 3), "other": 5.0, "nearest_own": 1 / 3}


def test_pictures_are_compared_by_colour():
    pictures = np.zeros((2, 1, 4, 4, 3), np.uint8)
    pictures[1] = 255
    moved = np.clip(pictures.astype(np.float32) / 255, 0.1, 0.9)
    found = scores.against_pixels(moved, pictures)
    assert found == {"own_rms": pytest.approx(0.1), "other_rms": pytest.approx(0.9),
                     "nearest_own_rms": 1.0}  # fmt: skip
    assert scores.against_pixels(moved[::-1], pictures)["nearest_own_rms"] == 0


def test_sets_are_compared_by_features():
    features = np.random.default_rng(0).random((6, 2, 10))
    same = scores.against(features, features)
    assert same["own"] == pytest.approx(0, abs=1e-6) and same["nearest_own"] == 1
    assert same["frechet"] == pytest.approx(0, abs=1e-4) and same["coverage"] == 1
    assert same["kernel"] == pytest.approx(0, abs=1e-4)
    turned = scores.against(np.roll(features, 1, axis=0), features)
    assert turned["nearest_own"] == 0 and turned["own"] > 1e-3
    assert turned["kernel"] < 0  # its pairs are the unlike ones
    assert set(scores.against(features[:2], features[:2])) == set(same)


def test_objects_are_judged():
    rng = np.random.default_rng(1)
    axes = np.eye(8, dtype=np.float32)
    views = np.stack([axes[0]] * 6 + [axes[1]] * 6)[:, None].repeat(4, 1)
    views = views + 0.05 * rng.normal(size=views.shape).astype(np.float32)
    names = ["car"] * 6 + ["house"] * 6
    bank = banks.build_bank(
        views, names, np.zeros(12, bool), (0, 90, 180, 270), dims=8,
        limits=banks.Limits(0.5, -1, 1, 1, 0, 0), whole=np.zeros(16, np.float32),
        real={"car": {"grain": 0.1, "holes": 0.25}},
    )  # fmt: skip
    pictures = np.full((4, 4, 64, 64, 3), 204, np.uint8)
    pictures[:, :, 16:48, 16:48] = 100
    found = scores.of_objects(bank, "a car", views[4:8], pictures)
    assert found["accepted"] == 0.5 and found["category"] == "car" and 0 < found["fidelity"] < 1
    assert found["grain"] == pytest.approx(0, abs=1e-3) and found["holes"] == -0.25
    assert 0.4 < found["similarity"] < 0.6 and 0.5 < found["diversity"] < 0.8
    assert 1.5 < found["vendi"] < 2.5
    house = scores.of_objects(bank, "a house", views[4:8], pictures)
    assert house["grain"] is house["holes"] is None
    unknown = scores.of_objects(bank, "a unicorn", views[4:8], pictures)
    for name in ("accepted", "similarity", "fidelity", "grain", "holes"):
        assert unknown[name] is None
