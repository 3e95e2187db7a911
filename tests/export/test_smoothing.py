"""Ripples go, edges stay."""

import numpy as np
import pytest
import trimesh

from dsd_jax.export import smoothing
from dsd_jax.export.isosurface import face_normals
from dsd_jax.export.smoothing import smooth, smooth_and_simple

ROUNDS = 10


@pytest.fixture(scope="module")
def box():
    """A box of 2 x 1 x 1, cut into triangles with edges of a sixteenth or so."""
    return trimesh.creation.box((2, 1, 1)).subdivide_to_size(0.1)


@pytest.fixture(scope="module")
def rippled(box):
    """The same with vertices moved along their normals by a hundredth, up or down."""
    up = np.random.default_rng(0).choice([-1, 1], len(box.vertices))
    return box.vertices + 0.01 * up[:, None] * box.vertex_normals


def off_planes(box, vertices):
    """How far vertices lie from the planes of the box's sides that they came from."""
    sides = np.abs(box.vertices) >= np.array([1, 0.5, 0.5]) - 1e-9
    return np.abs(np.abs(vertices) - [1, 0.5, 0.5])[sides]


def turned_deg(box, vertices):
    """Angles between triangles and the sides of the box that they came from."""
    normals = face_normals(vertices, box.faces)
    cosine = (normals * box.face_normals).sum(1) / np.linalg.norm(normals, axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def test_ripples_go_and_edges_stay(box, rippled):
    found = smooth(rippled, box.faces, ROUNDS)
    before, after = (off_planes(box, x) for x in (rippled, found))
    assert np.sqrt(np.mean(after**2)) < 0.5 * np.sqrt(np.mean(before**2))
    before, after = (turned_deg(box, x).mean() for x in (rippled, found))
    assert before > 5
    assert after < 2


def test_what_is_flat_or_sharp_stays_where_it_is(box):
    found = smooth(box.vertices, box.faces, ROUNDS)
    np.testing.assert_allclose(found, box.vertices, atol=2e-3)


def test_a_ball_keeps_its_volume():
    ball = trimesh.creation.icosphere(3)
    found = trimesh.Trimesh(smooth(ball.vertices, ball.faces, ROUNDS), ball.faces, process=False)
    assert found.volume == pytest.approx(ball.volume, rel=0.02)


def test_size_place_and_turn_do_not_matter(box, rippled):
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])[:3, :3]
    moved = smooth(3 * rippled @ turn.T + [4, 5, 6], box.faces, 3)
    expected = 3 * smooth(rippled, box.faces, 3) @ turn.T + [4, 5, 6]
    np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_no_rounds_change_nothing(box, rippled):
    assert smooth(rippled, box.faces, 0) is rippled


def test_triangles_without_area_do_no_harm(box):
    faces = np.vstack([box.faces, [[0, 0, 1], [5, 5, 5]]])
    assert np.isfinite(smooth(box.vertices, faces, 2)).all()


@pytest.mark.parametrize(("sound_at", "rounds"), [(1, 10), (2, 5), (3, 0)])
def test_a_surface_that_smoothing_makes_cut_itself_is_smoothed_less(
    box, rippled, monkeypatch, sound_at, rounds
):
    tried = iter(range(1, 4))
    monkeypatch.setattr(smoothing, "is_sound", lambda *_: next(tried) == sound_at)
    vertices, _ = smooth_and_simple(rippled, box.faces, ROUNDS, len(box.faces))
    np.testing.assert_allclose(vertices, smooth(rippled, box.faces, rounds))


def test_what_cannot_be_told_smoothed_is_told_as_it_is(box, rippled, monkeypatch):
    def refuse(vertices, *given):
        if vertices is not rippled:
            raise ValueError("so few triangles")
        return vertices, box.faces

    monkeypatch.setattr(smoothing, "simplify", refuse)
    assert smooth_and_simple(rippled, box.faces, ROUNDS, 9)[0] is rippled
