"""Deformed copies: what changes, what stays, and that they fit their frame."""

import numpy as np
import pytest

from dsd_jax.data.deformed import with_deformed
from dsd_jax.data.objects import UNIT, load_objects


@pytest.fixture
def copies(objects_file):
    objects = load_objects(objects_file)
    return objects, with_deformed(objects, 3, np.random.default_rng(0))


def test_the_objects_come_first_as_they_are(copies):
    objects, many = copies
    n = len(objects)
    assert len(many) == 4 * n and many.caption == 4 * objects.caption
    for i in range(n):
        np.testing.assert_allclose(many.triangles(i), objects.triangles(i), atol=1e-6)


def test_a_copy_has_the_faces_and_labels_and_another_shape(copies):
    objects, many = copies
    n = len(objects)
    for i in range(n, 4 * n):
        own = i % n
        assert many.category[i] == objects.category[own]
        assert many.colourless[i] == objects.colourless[own]
        np.testing.assert_array_equal(many.colours(i), objects.colours(own))
        assert many.triangles(i).shape == objects.triangles(own).shape
        assert np.abs(many.triangles(i) - objects.triangles(own)).max() > 0.02


def test_a_copy_is_centred_and_has_the_size_of_an_object(copies):
    _, many = copies
    for i in range(len(many)):
        points = many.vertices[slice(*many.vertex_offset[i : i + 2])] / UNIT
        low, high = points.min(0), points.max(0)
        np.testing.assert_allclose(low + high, 0, atol=1e-4)
        assert np.linalg.norm(high - low) / 2 == pytest.approx(1, abs=1e-3)


def test_some_are_mirrored(copies):
    """The sign of a face's volume with the middle tells, however it is stretched."""
    objects, many = copies
    volume = lambda data, i: np.linalg.det(data.triangles(i)).sum()  # noqa: E731
    n = len(objects)
    signs = [np.sign(volume(many, i) * volume(objects, i % n)) for i in range(n, 4 * n)]
    assert {-1.0, 1.0} <= set(signs)


def test_no_copies_leave_all_as_it_was(copies):
    objects, _ = copies
    assert with_deformed(objects, 0, np.random.default_rng(0)) is objects
