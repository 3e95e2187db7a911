"""How far pictures and masks agree, by hand."""

import numpy as np
import pytest

from dsd_jax.rendering.agreement import iou, psnr


def test_pictures_that_differ_by_a_tenth_are_at_20_db():
    black = np.zeros((4, 4, 3))
    np.testing.assert_allclose(psnr(np.stack([black + 0.1, black]), black), [20, 100])


def test_overlap_of_masks():
    ours, theirs = np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[0.6, 0.4], [0.6, 0.0]])
    assert iou(ours, theirs) == pytest.approx(1 / 3)
    empty = np.zeros((2, 2))
    np.testing.assert_array_equal(iou(np.stack([ours, empty]), empty), [0, 1])
