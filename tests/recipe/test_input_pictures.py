"""Several pictures of one object."""

import numpy as np
import pytest
from PIL import Image

from dsd_jax.recipe.input_picture import box_of
from dsd_jax.recipe.input_pictures import read_pictures


def drawn(path, height, width):
    """A box of so many pixels on nothing."""
    rgba = np.zeros((100, 160, 4), np.uint8)
    rgba[10 : 10 + height, 5 : 5 + width] = [200, 30, 30, 255]
    Image.fromarray(rgba).save(path)
    return path


def test_a_picture_alone_is_read_as_ever(tmp_path):
    from dsd_jax.recipe.input_picture import read_picture

    file = drawn(tmp_path / "a.png", 40, 60)
    alone, one = read_picture(file, 12.0), read_pictures([file], [70.0], [12.0])
    assert one.others == () and one.elevation_deg == 12
    np.testing.assert_array_equal(one.rgb, alone.rgb)
    np.testing.assert_array_equal(one.mask, alone.mask)


def test_heights_become_one(tmp_path):
    """A bus is 40 high, 30 wide from its front, and 120 long: this fills the frame."""
    files = [drawn(tmp_path / "front.png", 40, 30), drawn(tmp_path / "side.png", 20, 60)]
    found = read_pictures(files, [0, 90])
    sizes = []
    for picture in (found, *found.others):
        top, bottom, left, right = box_of(picture.mask)
        sizes.append((bottom - top, right - left))
    (front_h, front_w), (side_h, side_w) = sizes
    assert abs(front_h - side_h) <= 2 and abs(side_w - 200) <= 2
    assert abs(front_w / front_h - 30 / 40) < 0.05
    assert [found.azimuth_deg, found.others[0].azimuth_deg] == [0, 90]
    assert found.elevation_deg is None and found.others[0].elevation_deg is None


def test_each_has_its_elevation_or_all_have_one(tmp_path):
    files = [drawn(tmp_path / "a.png", 40, 30), drawn(tmp_path / "b.png", 40, 30)]
    one, each = read_pictures(files, [0, 90], [5.0]), read_pictures(files, [0, 90], [5.0, 9.0])
    assert one.others[0].elevation_deg == 5 and each.others[0].elevation_deg == 9
    with pytest.raises(ValueError, match="2 pictures and 3 elevations"):
        read_pictures(files, [0, 90], [1.0, 2.0, 3.0])
