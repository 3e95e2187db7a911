"""Distances between sets whose answer is known."""

import numpy as np
import pytest
import scipy.linalg

from dsd_jax.metrics.distributions import coverage, frechet_distance, kernel_distance


def stretched(rng, n, covariance, mean):
    """n rows with exactly this mean and (unbiased) covariance."""
    rows = rng.normal(size=(n, len(mean)))
    rows -= rows.mean(0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return rows @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_gaussians():
    """Equal axes: sum of (difference of means)^2 + (difference of deviations)^2."""
    rng = np.random.default_rng(0)
    a = stretched(rng, 40, np.diag([4.0, 1.0, 9.0]), [0, 1, 2])
    b = stretched(rng, 30, np.diag([1.0, 1.0, 25.0]), [3, 1, 0])
    assert frechet_distance(a, b) == pytest.approx((9 + 0 + 4) + (1 + 0 + 4), rel=1e-5)
    assert frechet_distance(b, a) == pytest.approx(18, rel=1e-5)


def test_frechet_distance_of_turned_gaussians():
    """Tr (C_a C_b)^(1/2) by the two-dimensional formula, sqrt(Tr C_a C_b + 2 sqrt(det C_a C_b))."""
    rng = np.random.default_rng(1)
    first, second = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    a, b = stretched(rng, 9, first, [0, 0]), stretched(rng, 7, second, [0, 0])
    mixed = first @ second
    root = np.sqrt(np.trace(mixed) + 2 * np.sqrt(np.linalg.det(mixed)))
    expected = np.trace(first) + np.trace(second) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("n", [16, 300])
def test_frechet_distance_in_float32_is_that_of_float64(n):
    """More features than samples, and more samples than features; means far from 0."""
    rng = np.random.default_rng(2)
    a, b = rng.gamma(2.0, size=(n, 200)), rng.gamma(3.0, size=(n + 5, 200))
    roots = scipy.linalg.eigvals(np.cov(a.T) @ np.cov(b.T)).real
    spread = np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * np.sqrt(np.maximum(roots, 0)).sum()
    expected = np.square(a.mean(0) - b.mean(0)).sum() + spread
    found = frechet_distance(a.astype(np.float32), b.astype(np.float32))
    assert found.dtype == np.float32 and found == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_of_equal_sets_is_zero():
    a = np.random.default_rng(3).normal(size=(20, 1280)).astype(np.float32)
    assert 0 <= frechet_distance(a, a) < 1e-5 * 2 * np.square(a).sum() / 19
    assert frechet_distance(a, a + 1) == pytest.approx(1280, rel=1e-4)


def test_kernel_distance_worked_by_hand():
    """d = 1, k(x, y) = (x y + 1)^3. Samples 0, 1: k = 1. Reference 1, 2: k = 27.

    Across: k(0, 1) = k(0, 2) = 1, k(1, 1) = 8, k(1, 2) = 27; mean 37 / 4.
    """
    a, b = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    assert kernel_distance(a, b) == pytest.approx(1 + 27 - 37 / 2)
    # The kernel divides by d: the same features twice are the same distance.
    assert kernel_distance(a.repeat(2, 1), b.repeat(2, 1)) == pytest.approx(9.5)


def test_kernel_distance_of_pairs_worked_by_hand():
    """Across, but for the own partner: k(0, 2) = 1 and k(1, 1) = 8, mean 9 / 2."""
    a, b = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    assert kernel_distance(a, b, paired=True) == pytest.approx(1 + 27 - 9)
    same = np.random.default_rng(6).normal(size=(8, 5))
    assert kernel_distance(same, same, paired=True) == pytest.approx(0, abs=1e-5)
    assert kernel_distance(same, same) < -0.1


def test_kernel_distance_is_unbiased():
    """0 on average between halves of one distribution, and positive between different ones."""
    rng = np.random.default_rng(4)
    found = np.array([kernel_distance(*rng.normal(size=(2, 8, 5))) for _ in range(200)])
    assert abs(found.mean()) < 3 * found.std() / np.sqrt(200) and found.min() < 0 < found.max()
    assert kernel_distance(rng.normal(size=(50, 5)), rng.normal(1, size=(50, 5))) > 0.5


def test_coverage_worked_by_hand():
    """On a line, k = 1. Radii of the reference 0, 1, 3, 10 are 1, 1, 2, 7.

    Sample 2 lies in the balls of 1 and 3, 2.5 in that of 3, -4 in none. Radii of the samples 2,
    2.5, -4 are 0.5, 0.5, 6: the ball of -4 holds 0 and 1, that of 2.5 holds 3, none holds 10.
    """
    reference, samples = np.array([[0.0], [1], [3], [10]]), np.array([[2.0], [2.5], [-4]])
    found = coverage(samples, reference, k=1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(3 / 4)
    assert found.density == pytest.approx(3 / 3)
    assert found.coverage == pytest.approx(2 / 4)


def test_coverage_on_a_square():
    """Corners of a square of side 1: radii are 1 for k = 2 and sqrt 2 for k = 3."""
    square = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    near = square + np.array([0.0, 0.5])
    found = coverage(near, square, k=2)
    # (0, .5) and (1, .5) are in two balls, (0, 1.5) and (1, 1.5) in one each; each ball has one.
    assert found == pytest.approx((1.0, 1.0, (2 + 2 + 1 + 1) / 4 / 2, 1.0))
    # Those below are then in all four, those above in the balls of the upper two corners.
    assert coverage(near, square, k=3).density == pytest.approx((4 + 4 + 2 + 2) / 4 / 3)


def test_coverage_of_equal_and_of_disjoint_sets():
    a = np.random.default_rng(5).normal(size=(30, 4)).astype(np.float32)
    same = coverage(a, a)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1) and same.density > 1
    assert coverage(a, a + 100) == (0, 0, 0, 0)
    # All samples on one mode of two: everything is precise, half is recalled.
    two = np.concatenate([a, a + 100])
    one = coverage(a, two)
    assert (one.precision, one.recall, one.coverage) == (1, 0.5, 0.5)


def test_too_few_samples_are_refused():
    a = np.zeros((4, 2))
    with pytest.raises(ValueError, match="at least two samples, not 1"):
        frechet_distance(a, a[:1])
    with pytest.raises(ValueError, match="at least two samples in each set"):
        kernel_distance(a[:1], a)
    with pytest.raises(ValueError, match="as many in both where they are paired"):
        kernel_distance(a[:3], a, paired=True)
    with pytest.raises(ValueError, match="k must be from 1 to the size of the smaller set - 1"):
        coverage(a, a[:3], k=3)
