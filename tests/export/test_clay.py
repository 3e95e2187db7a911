"""Pictures of clay, against what is worked out by hand."""

import numpy as np
import trimesh

from dsd_jax.export.clay import clay_views
from dsd_jax.rendering.cameras import ring

AHEAD = ring([0.0, 90.0], 0.0, 2.7, 40.0)


def test_a_cube_from_its_sides():
    """A side that faces the camera gets 1/4 + 3/4 of the light's 2/3, of a clay of 0.72."""
    box = trimesh.creation.box()
    views = clay_views(box.vertices, box.faces, AHEAD, size=32)
    assert views.shape == (2, 32, 32, 3) and views.dtype == np.uint8
    np.testing.assert_array_equal(views[0], views[1])  # the light goes with the camera
    assert (views[0, 0, 0] == 204).all()
    assert (views[0, 16, 16] == round(255 * 0.72 * 0.75)).all()


def test_it_does_not_matter_how_faces_are_wound():
    ball = trimesh.creation.icosphere(2)
    mixed = np.where(np.arange(len(ball.faces))[:, None] % 2, ball.faces, ball.faces[:, ::-1])
    one, other = (clay_views(ball.vertices, faces, AHEAD, 32) for faces in (ball.faces, mixed))
    np.testing.assert_array_equal(one, other)


def test_light_comes_from_above_and_the_left():
    view = clay_views(*_ball(), AHEAD, 64)[0, ..., 0].astype(int)
    assert view[20, 26] > view[44, 26] and view[20, 26] > view[20, 38]
    assert view[view != 204].min() >= round(255 * 0.72 * 0.25) and view.max() == 204


def _ball():
    ball = trimesh.creation.icosphere(3, radius=0.8)
    return ball.vertices, ball.faces
