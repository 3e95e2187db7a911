"""Grain and holes, on pictures whose values are known."""

import numpy as np
import pytest

from dsd_jax.metrics import grain
from dsd_jax.rendering.scene import GREY


def disc(colour=0.2, size=64) -> np.ndarray:
    """A plain disc on grey."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    view = np.full((size, size, 3), GREY)
    view[x**2 + y**2 < (0.4 * size) ** 2] = colour
    return view


def test_a_plain_disc_has_neither():
    assert grain.of_view(disc()) == (0.0, 0.0)
    assert grain.of_view(np.rint(disc() * 255).astype(np.uint8)) == (0.0, 0.0)


def test_grain_is_the_mean_laplacian_inside():
    """A chessboard of +- 0.1: each pixel differs from its four neighbours by 0.2."""
    view = disc(0.4)
    board = 0.1 * (-1.0) ** np.add.outer(np.arange(64), np.arange(64))
    view[grain.silhouette(view)] += board[grain.silhouette(view)][:, None]
    assert grain.of_view(view)[0] == pytest.approx(0.8)


def test_a_hole_is_background_inside():
    view = disc()
    view[28:36, 28:36] = GREY
    inner = grain.inside(grain.silhouette(disc()))
    assert grain.of_view(view)[1] == pytest.approx(64 / inner.sum())


def test_where_there_is_nothing_there_is_no_grain():
    nothing = np.full((1, 2, 64, 64, 3), GREY)
    assert grain.of_view(nothing[0, 0]) is None
    assert grain.of_objects(nothing) == {"grain": None, "holes": None}


def test_of_objects_takes_the_median_of_views():
    views = np.stack([disc(), disc(), disc(0.5)])[None]
    assert grain.of_objects(views) == {"grain": 0.0, "holes": 0.0}


def test_beside_real_objects():
    """A chessboard of +- 0.1 has a grain of 0.8; at half the size it is gone."""
    view = disc(0.4, 128)
    board = 0.1 * (-1.0) ** np.add.outer(np.arange(128), np.arange(128))
    view[grain.silhouette(view)] += board[grain.silhouette(view)][:, None]
    found = grain.beside_real(view[None, None], 0.2, 0.01)
    assert found == {"grain": pytest.approx(4), "holes": -0.01}
    large = np.rint(255 * disc(0.4, 256)).astype(np.uint8)
    assert grain.at_scale(large[None, None]).shape == (1, 1, 128, 128, 3)
    assert grain.beside_real(large[None, None], 0.2, 0.0)["grain"] == pytest.approx(0, abs=1e-4)
    unknown = {"grain": None, "holes": None}
    assert grain.beside_real(view[None, None], np.nan, np.nan) == unknown
