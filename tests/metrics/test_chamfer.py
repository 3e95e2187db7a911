"""Distances of surfaces that are known."""

import numpy as np
import pytest
import trimesh

from dsd_jax.metrics import chamfer


def points_of(mesh, seed=0, count=chamfer.POINTS):
    return chamfer.surface_points(mesh.vertices, mesh.faces, count, seed)


def test_by_hand():
    """One way 0 and 3, the other 0 and 1."""
    ours, theirs = np.array([[0.0, 0, 0], [0, 4, 0]]), np.array([[0.0, 0, 0], [0, 0, 1]])
    assert chamfer.chamfer(ours, theirs) == pytest.approx(((0 + 4) / 2 + (0 + 1) / 2) / 2)
    assert chamfer.chamfer(theirs, ours) == chamfer.chamfer(ours, theirs)


def test_concentric_spheres_are_their_gap_apart():
    small, large = (trimesh.creation.icosphere(4, radius) for radius in (0.4, 0.5))
    assert chamfer.chamfer(points_of(small), points_of(large)) == pytest.approx(0.1, abs=0.005)
    assert chamfer.chamfer(points_of(small), points_of(small, seed=1)) < 0.01


def test_points_are_even_and_the_same_for_a_seed():
    box = trimesh.creation.box((1, 1, 2))
    points = points_of(box)
    np.testing.assert_array_equal(points, points_of(box))
    assert (points != points_of(box, seed=1)).any()
    assert np.isclose(np.abs(points / [0.5, 0.5, 1]).max(1), 1).all()
    assert np.isclose(np.abs(points[:, 2]), 1).mean() == pytest.approx(0.2, abs=0.02)


def test_of_seeds_in_the_unit_box():
    """The truth is 2 long, so that distances are halves; a seed without a mesh does not count."""
    truth = points_of(trimesh.creation.icosphere(4, 1.0))
    made = [points_of(trimesh.creation.icosphere(4, radius)) for radius in (0.8, 0.6)]
    found = chamfer.of_seeds(np.stack([*made, np.full_like(truth, np.nan)]), truth)
    assert found["chamfer_best"] == pytest.approx(0.1, abs=0.005)
    assert found["chamfer_mean"] == pytest.approx(0.15, abs=0.005)
    nothing = chamfer.of_seeds(np.full((2, 10, 3), np.nan), truth)
    assert nothing == {"chamfer_mean": None, "chamfer_best": None}


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.full((2, 3), np.nan)])
def test_points_that_are_none_are_refused(points):
    with pytest.raises(ValueError, match="needs points, all of them finite"):
        chamfer.chamfer(points, np.zeros((1, 3)))
