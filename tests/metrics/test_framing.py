"""Where objects stand in their pictures, worked by hand."""

import numpy as np

from dsd_jax.metrics.framing import framing, relief
from dsd_jax.rendering.scene import GREY


def block(rows: slice, columns: slice) -> np.ndarray:
    """A dark block on grey."""
    view = np.full((100, 100, 3), GREY)
    view[rows, columns] = 0.1
    return view


def test_framing_by_hand():
    """In the middle; its right half; its upper half; and to the right as often as to the left."""
    middle, all_ = slice(20, 80), slice(20, 80)
    views = np.stack(
        [
            [block(middle, all_)] * 2,
            [block(middle, slice(50, 80))] * 2,
            [block(slice(20, 50), all_)] * 2,
            [block(middle, slice(30, 90)), block(middle, slice(10, 70))],
        ]
    )
    found = framing(views)
    np.testing.assert_allclose(found.sideways, [0, 0.5, 0, 1 / 6], atol=1e-6)
    np.testing.assert_allclose(found.upwards, [0, 0, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(found.extent, 0.6)
    assert (found.relief < 1e-6).all()
    same = framing(np.rint(views * 255).astype(np.uint8))
    np.testing.assert_allclose(same, found, atol=1e-6)


def test_a_speck_moves_nothing_and_nothing_is_out_of_frame():
    view = block(slice(20, 80), slice(20, 80))
    view[50, 99] = 0
    assert framing(view[None, None]).sideways < 0.01
    nothing = framing(np.full((1, 2, 9, 9, 3), GREY))
    assert (nothing.sideways, nothing.upwards, nothing.extent) == (1, 1, 0)
    assert np.isinf(nothing.relief)


def test_relief_by_hand():
    """Grains 0.2 and 0.4 beside a view without an inside; and none at all."""
    texture = np.array([[[0.2, 0], [0.4, 0.1], [np.nan, np.nan]], [[np.nan, np.nan]] * 3])
    np.testing.assert_allclose(relief(texture), [0.3, np.inf])
