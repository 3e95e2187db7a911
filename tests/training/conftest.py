"""A few boxes, packed as the objects that the priors are trained from."""

import numpy as np
import pytest

from dsd_jax.data.objects import Item, save_objects


def box(size, rgb, caption, category, **flags):
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    colours = np.full((12, 3), rgb, np.uint8)
    return Item(corners * size, faces, colours, caption, category, **flags)


BOXES = [
    box((1, 2, 1), (200, 30, 30), "red tower", "tower"),
    box((2, 1, 1), (30, 30, 200), "blue brick", "brick"),
    box((1, 1, 1), (250, 250, 250), "cube", "cube", symmetric=True, colourless=True),
]


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    path = tmp_path_factory.mktemp("objects") / "objects.npz"
    save_objects(path, BOXES)
    return path


@pytest.fixture(scope="session")
def packed_with_held_out(tmp_path_factory):
    """The last of the four is held out."""
    path = tmp_path_factory.mktemp("objects") / "objects.npz"
    save_objects(path, [*BOXES, box((2, 1, 1), (30, 200, 30), "pineapple", "brick")])
    return path
