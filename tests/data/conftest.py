"""A small objects.npz made of synthetic meshes."""

import numpy as np
import pytest

from dsd_jax.data.objects import Item, save_objects


def random_item(seed: int, faces: int, caption: str, category: str, **labels) -> Item:
    """A cloud of coloured triangles."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(faces, 1, 3)) * [1.0, 0.6, 0.4]
    vertices = (middle + 0.2 * rng.normal(size=(faces, 3, 3))).reshape(-1, 3)
    index = np.arange(3 * faces).reshape(faces, 3)
    rgb = rng.integers(0, 256, (faces, 3))
    return Item(vertices, index, rgb, caption, category, **labels)


@pytest.fixture
def items():
    return [
        random_item(0, 12, "red house with gray roof", "house"),
        random_item(1, 300, "white rock", "rock", symmetric=True, colourless=True),
        random_item(2, 20, "small green fish", "fish"),
    ]


@pytest.fixture
def objects_file(items, tmp_path):
    path = tmp_path / "objects.npz"
    save_objects(path, items)
    return path
