"""Diversity of sets whose answer is known."""

import numpy as np
import pytest

from dsd_jax.metrics.diversity import (
    diversity,
    object_features,
    pairwise_cosine_distance,
    per_object_diversity,
    vendi_score,
)


def views(rows):
    """Objects [n, 2, d] whose two views average to the rows."""
    rows = np.asarray(rows, np.float32)
    return np.stack([1.5 * rows, 0.5 * rows], 1)


def test_hand_worked_distances():
    rows = [[1, 0, 0], [0, 2, 0], [3, 3, 0]]
    half = 1 - np.sqrt(0.5)
    expected = [[0, 1, half], [1, 0, half], [half, half, 0]]
    np.testing.assert_allclose(pairwise_cosine_distance(np.array(rows)), expected, atol=1e-6)
    assert diversity(views(rows)) == pytest.approx((1 + 2 * half) / 3)
    np.testing.assert_allclose(
        per_object_diversity(views(rows)), [(1 + half) / 2, (1 + half) / 2, half], rtol=1e-6
    )


def test_against_a_loop_over_pairs():
    features = np.random.default_rng(0).normal(size=(6, 3, 10)).astype(np.float32)
    mean = features.astype(np.float64).mean(1)
    pairs = [
        1 - mean[i] @ mean[j] / np.linalg.norm(mean[i]) / np.linalg.norm(mean[j])
        for i in range(6) for j in range(i)
    ]  # fmt: skip
    assert diversity(features) == pytest.approx(np.mean(pairs), rel=1e-6)


def test_alike_opposite_single():
    assert diversity(views([[1, 2], [1, 2], [2, 4]])) == pytest.approx(0, abs=1e-6)
    assert diversity(views([[1, 0], [-1, 0]])) == pytest.approx(2)
    assert diversity(views([[1, 2]])) == 0.0


def test_features_are_not_centred_and_views_are_averaged_first():
    features = np.array([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]])
    np.testing.assert_array_equal(object_features(features), [[0.5, 0.5]] * 2)
    assert diversity(features) == pytest.approx(0, abs=1e-6)


def test_vendi_score_counts_different_objects():
    assert vendi_score(views(np.eye(5))) == pytest.approx(5)
    assert vendi_score(views(np.ones((5, 3)))) == pytest.approx(1)
    two_pairs = np.repeat(np.eye(2), 2, axis=0)
    assert vendi_score(views(two_pairs)) == pytest.approx(2)
    assert vendi_score(views([[1, 0]])) == pytest.approx(1)


def test_rounding_makes_no_distance_negative():
    same = np.random.default_rng(0).normal(size=(1, 3, 50)).repeat(20, 0) / 3
    assert pairwise_cosine_distance(object_features(same)).min() == 0
