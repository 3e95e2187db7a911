"""Scores of objects made from a picture, worked by hand on few pixels and features."""

import numpy as np
import pytest

from dsd_jax.metrics import novel_views
from dsd_jax.metrics.novel_views import Views

AZIMUTHS = (0.0, 45.0, 180.0)
X, Y = np.eye(2)
# Of length 1, at cosine 0.6 to X.
LEANING = np.array([0.6, 0.8])


def test_distance_of_features_ignores_their_length():
    found = novel_views.perceptual(np.stack([X, 3 * Y, 2 * LEANING]), 5 * X)
    np.testing.assert_allclose(found, [0, 1, 0.4], atol=1e-12)


def test_sides_of_the_eight_views_of_a_run():
    sides = novel_views.sides([45.0 * i for i in range(8)])
    assert np.flatnonzero(sides["visible"]).tolist() == [0, 1, 7]
    assert np.flatnonzero(sides["hidden"]).tolist() == [3, 4, 5]


@pytest.fixture
def views():
    """Two seeds' three views of 2 x 2 pixels, and the truth: black, its upper row solid.

    Seed 0 is the truth but for colours off by 0.1 at the novel views, and a feature that leans at
    the back. Seed 1 is off by 0.01 at all views, but its mask at the novel ones is the left column,
    and its back has the other feature.
    """
    upper, left = np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    truth = Views(np.zeros((3, 2, 2, 3)), np.stack([upper] * 3), np.stack([X, X, X]))
    off = np.array([[0.0, 0.1, 0.1], [0.01] * 3])
    made = Views(
        rgb=truth.rgb + off[..., None, None, None],
        opacity=np.stack([[upper] * 3, [upper, left, left]]),
        features=np.stack([[X, X, LEANING], [X, X, Y]]),
    )
    return made, truth


def test_scores_of_an_object(views):
    found = novel_views.of_object(*views, AZIMUTHS)
    assert found == pytest.approx({
        "reference_psnr": (100 + 40) / 2,
        "reference_iou": 1.0,
        "psnr_mean": (20 + 40) / 2,
        "psnr_best": 40.0,
        "iou_mean": (1 + 1 / 3) / 2,
        "iou_best": 1.0,
        "perceptual_mean": ((0 + 0.4) / 2 + (0 + 1) / 2) / 2,
        "perceptual_best": 0.2,
        "visible": 0.0,  # both seeds have X there
        "hidden": 0.2,  # LEANING and Y are at cosine 0.8
    }, abs=1e-6)  # fmt: skip


def test_the_order_of_seeds_does_not_matter(views):
    made, truth = views
    turned = Views(*(part[::-1] for part in made))
    scores = [novel_views.of_object(seeds, truth, AZIMUTHS) for seeds in (made, turned)]
    assert scores[0] == pytest.approx(scores[1])


def test_ratios_are_of_means_over_objects():
    """Not means of ratios: the second object has nothing to divide by."""
    dsd = novel_views.summary([{"visible": 0.2, "hidden": 0.3}, {"visible": 0.0, "hidden": 0.5}])
    assert dsd == pytest.approx({"visible": 0.1, "hidden": 0.4, "hidden_over_visible": 4.0})
    sds = novel_views.summary([{"visible": 0.0, "hidden": 0.1}])
    assert sds["hidden_over_visible"] is None
    assert novel_views.compared({"dsd": dsd, "sds": sds}, "sds") == {
        "dsd": {"visible_of_sds": None, "hidden_of_sds": pytest.approx(4.0)},
        "sds": {"visible_of_sds": None, "hidden_of_sds": 1.0},
    }
