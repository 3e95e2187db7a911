"""Scores of a prior's own pictures, on cases worked by hand."""

import numpy as np
import pytest

from dsd_jax.metrics import bank as banks
from dsd_jax.metrics import grain, real_scores
from dsd_jax.rendering.scene import GREY
from dsd_jax.training import prior_scores as scores

WIDTH = 12
LIMITS = banks.Limits(vote=0.5, whole=-1.0, sideways=0.1, upwards=0.2, extent=0.6, relief=0.0)


def turned(degrees) -> np.ndarray:
    """Directions in the plane of the first two axes, [n, WIDTH]."""
    angle = np.radians(np.asarray(degrees, float))
    found = np.zeros((len(angle), WIDTH), np.float32)
    found[:, 0], found[:, 1] = np.cos(angle), np.sin(angle)
    return found


@pytest.fixture(scope="module")
def bank():
    """Six cars at 0 to 5 degrees, four houses at 20 to 23, and a ball at 90."""
    features = turned([0, 1, 2, 3, 4, 5, 20, 21, 22, 23, 90])
    names = ["car"] * 6 + ["house"] * 4 + ["ball"]
    return banks.build_bank(
        np.repeat(features[:, None], 4, 1), names, np.ones(11, bool),
        (0, 90, 180, 270), limits=LIMITS, whole=np.zeros(2 * WIDTH, np.float32), dims=WIDTH,
        real={"car": {"grain": 0.02}, "house": {"grain": 0.05}},
    )  # fmt: skip


def test_right_where_the_category_is_among_the_five_nearest(bank):
    """At 12 degrees five cars are nearest but 1 and 0: 5, 4, 20, 3, 21; at 1 all are cars."""
    made = turned([12, 1])[:, None]
    assert scores.right_in_five(bank, "car", made).tolist() == [True, True]
    assert scores.right_in_five(bank, "house", made).tolist() == [True, False]


def test_real_objects_are_left_out_in_turn(bank):
    """A ball alone has no ball beside it."""
    names = ["car", "house", "ball"]
    assert scores.real_right_in_five(bank, names) == {"car": 1.0, "house": 1.0, "ball": 0.0}


def test_verdicts_of_categories(bank):
    """Of the cars one is a ball: no car among 90, 23, 22, 21, 20, and the vote is the ball's."""
    features = {"car": turned([2, 90])[:, None], "house": turned([21, 22])[:, None]}
    found = scores.verdicts(bank, features)
    assert found["right_per_category"] == {"car": 0.5, "house": 1.0}
    assert found["accepted_per_category"] == {"car": 0.5, "house": 1.0}
    assert found["right"] == found["accepted"] == 0.75
    assert found["right_least"] == found["accepted_least"] == {"car": 0.5}
    assert found["right_of_real"] == 1.0


def test_the_most_detailed_are_those_whose_grain_is_known(bank):
    assert scores.most_detailed(bank, ["car", "ball", "house"]) == ["house", "car"]
    assert scores.most_detailed(bank, ["car", "house"], 1) == ["house"]


def test_over_real_objects():
    made = {"car": 0.2, "fish": 0.3, "tree": None, "house": 0.1}
    found = scores.over(made, {"car": 0.4, "tree": 0.5, "house": 0.0})
    assert found == {"car": 0.5, "tree": None, "house": None}
    assert scores.mean(found) == 0.5 and scores.mean({"tree": None}) is None
    assert set(real_scores.load()["distance"]) == {"house", "chair", "tree", "fish", "car"}


def test_saturation_is_that_of_the_silhouette():
    """Half is red, at (1 - 0.5) / 1, half black, at 0; the background is left out."""
    views = np.full((2, 8, 8, 3), GREY)
    views[0, 2:4, 2:6] = 1.0, 0.5, 0.5
    views[1, 4:6, 2:6] = 0.0
    assert scores.saturation(views) == pytest.approx(0.25)
    assert scores.saturation(np.rint(views * 255).astype(np.uint8)) == pytest.approx(0.25, abs=2e-3)
    assert scores.saturation(np.full((1, 8, 8, 3), GREY)) == 0.0


def test_the_share_of_grey():
    """Saturations are 0.5, 0.091 twice, and of an object seen from two sides their mean."""
    red, pale = np.full((2, 4, 4, 3), 0.5)
    red[..., 0], pale[..., 0] = 1.0, 0.55
    objects = np.stack([[red, red], [pale, pale], [red, pale], [pale, pale]])
    assert scores.grey_share(objects) == 0.5


class Faded:
    """A prior whose autoencoder halves all contrast with the background."""

    params, sees_opacity = None, True

    @staticmethod
    def encode(params, image):
        return (image - GREY) / 2

    @staticmethod
    def decode(params, x):
        return x + GREY


def test_the_detail_that_an_autoencoder_keeps():
    """A chessboard of half the contrast has half the Laplacian; three views, two at once."""
    rgba = np.zeros((1, 3, 64, 64, 4), np.uint8)
    rgba[:, :, 12:52, 12:52, 3] = 255
    board = np.add.outer(np.arange(40), np.arange(40)) % 2
    rgba[:, :, 12:52, 12:52, :3] = (40 + 80 * board)[..., None]
    before, after = scores.round_trip(Faded, rgba, batch=2)
    np.testing.assert_allclose(before[0, 2, 0, 0], GREY, atol=1e-6)
    np.testing.assert_allclose(before[0, 2, 12, 13], 120 / 255, atol=1e-6)
    np.testing.assert_allclose(after - GREY, (before - GREY) / 2, atol=1e-6)
    wide, faded = (grain.at_scale(views) for views in (before, after))
    assert scores.detail_kept(wide, faded) == pytest.approx(0.5, abs=1e-3)
    assert scores.detail_kept(np.full_like(wide, GREY), faded) is None
