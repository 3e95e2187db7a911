"""A direction that tells what is whole, on features whose answer is known."""

import numpy as np

from dsd_jax.metrics import wholeness


def test_evidence_by_hand():
    """Views (3, 0) and (0, 5): the mean (1.5, 2.5); unit views are 1/2 off their mean each."""
    found = wholeness.evidence(np.array([[[3.0, 0], [0, 5]], [[2, 0], [4, 0]]]))
    length = np.hypot(1.5, 2.5)
    expected = [[1.5 / length, 2.5 / length, 1, 1], [1, 0, 0, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_direction_is_fishers_discriminant():
    """With means at (+-1, 0) and C = diag(1 + 1, 4): the ridge is 0.2 * 3."""
    cross = np.array([[1.0, 2], [1, -2], [-1, 2], [-1, -2]])
    aside = np.array([1, 0])
    whole, broken = cross + aside, np.tile(cross, (3, 1)) - aside
    found = wholeness.direction(whole, broken)
    np.testing.assert_allclose(found, [1 / (2 + 0.6), 0], atol=1e-6)


def test_left_out_objects_do_not_judge_themselves():
    """Noise cannot be told from noise; what differs can."""
    rng = np.random.default_rng(0)
    whole, broken = rng.normal(size=(100, 60)), rng.normal(size=(100, 60))
    source = np.arange(100)
    known, found = wholeness.left_out(whole, broken, source, broken, source)
    fitted = wholeness.direction(whole, broken)
    assert whole.mean(0) @ fitted - broken.mean(0) @ fitted > 0.3
    assert abs(known.mean() - found.mean()) < 0.2
    known, found = wholeness.left_out(whole + 1, broken - 1, source, broken - 1, source)
    assert known.min() > found.max()
