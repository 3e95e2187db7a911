"""Distances between a prior's own pictures, worked by hand."""

import numpy as np
import pytest

from dsd_jax.training import novel_view_scores as scores


def test_distances_worked_by_hand():
    """Pictures at 60 degrees are 1 - cos 60 apart, at 90 degrees 1; the truth is the first."""
    made = np.zeros((2, 2, 3, 3))
    made[:, :, :, 0] = 1
    made[0, 0, 2] = np.cos(np.pi / 3), np.sin(np.pi / 3), 0  # the other object's are all alike
    made[:, 1] = np.eye(3)
    truth = np.zeros((2, 2, 3))
    truth[:, :, 0] = 2
    found = scores.distances(made, truth)
    near = (2 * 0.5 / 3) / 2  # of three pairs two are 0.5 apart; of the other object 0
    assert found["between_45"] == pytest.approx(near)
    assert found["between_180"] == pytest.approx(1)
    assert found["between_45_over_180"] == pytest.approx(near)
    assert found["to_truth_45"] == pytest.approx(0.5 / 6)  # one of six pictures
    assert found["to_truth_180"] == pytest.approx(2 / 3)
