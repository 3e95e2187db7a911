"""Functions from images to features, and the batches in which they are computed."""

import numpy as np
import pytest

from dsd_jax.metrics import efficientnet, features
from dsd_jax.metrics.batches import in_batches


def test_pixels():
    images = np.arange(24, dtype=np.uint8).reshape(2, 1, 2, 2, 3)
    found = features.pixels(images)
    assert found.shape == (2, 1, 12) and found.dtype == np.float32
    np.testing.assert_allclose(found[1, 0], np.arange(12, 24) / 255)
    np.testing.assert_array_equal(features.pixels(images / np.float32(255)), found)


def test_efficientnet_is_that_of_the_judge():
    images = np.random.default_rng(0).uniform(size=(3, 128, 128, 3)).astype(np.float32)
    params = efficientnet.load_efficientnet()
    expected = efficientnet.features_in_batches(params, images)
    np.testing.assert_array_equal(features.efficientnet_lite0()(images), expected)


@pytest.mark.parametrize("batch", [2, 4, 64])
def test_batches_are_equally_large(batch):
    """6 images by twos, by fours with the last batch filled up, and all at once."""
    images, sizes = np.arange(6.0).reshape(2, 3, 1, 1, 1), []

    def function(part):
        sizes.append(len(part))
        return part[:, 0, 0] * [1, 10]

    found = in_batches(function, images, batch)
    assert set(sizes) == {min(batch, 6)}
    np.testing.assert_array_equal(found[..., 1], [[0, 10, 20], [30, 40, 50]])
