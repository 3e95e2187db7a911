"""Share of an object's opacity that floats beside it."""

import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.metrics import floaters


def test_opacity_of_a_cell_is_that_of_a_straight_ray():
    """Density 3 where x > 0: exp(-3 * 2 / 8) passes a cell of an eighth of the box."""
    grid = floaters.opacity_grid(lambda p: (3.0 * (p[:, 0] > 0), None), cells=8)
    np.testing.assert_allclose(grid[:4], 0)
    np.testing.assert_allclose(grid[4:], 1 - np.exp(-0.75), rtol=1e-5)


def test_share_by_hand():
    opacity = np.zeros((8, 8, 8))
    opacity[0, 0, :3] = 0.5
    opacity[1, 1, 3] = 0.5  # touches the bar at a corner
    opacity[5, 5, 5] = 0.4
    opacity[7, 7, 7] = 0.1 - 1e-3  # haze that touches nothing
    opacity[0, 1, 0] = opacity[5, 5, 6] = 0.05  # rims: of the largest, and of what floats
    assert floaters.floating_share(opacity) == pytest.approx(0.549 / 2.599)
    opacity[5, 5, 5:7] = opacity[7, 7, 7] = 0
    assert floaters.floating_share(opacity) == 0


@pytest.mark.parametrize("haze", [0.0, 0.05])
def test_nothing_solid_is_all_afloat(haze):
    assert floaters.floating_share(jnp.full((4, 4, 4), haze)) == 1.0


def test_rounding_makes_no_share_negative():
    rng = np.random.default_rng(0)
    grids = rng.uniform(0.2, 1.0, (200, 3, 3, 3)).astype(np.float32)
    assert min(floaters.floating_share(grid) for grid in grids) >= 0
