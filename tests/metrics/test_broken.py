"""Objects broken on purpose are broken as is said."""

import numpy as np
import pytest
import trimesh

from dsd_jax.metrics import broken, geometry


def area(triangles):
    edges = triangles[:, 1:] - triangles[:, :1]
    return np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1).sum() / 2


@pytest.fixture
def soup():
    """Random triangles in the box [-1, 1]^3, each of a colour of its own."""
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (40, 3, 3)), rng.random((40, 3))


def test_clipped_by_hand():
    """A triangle with its tip at x = 1 and its base at x = -1 keeps a quarter of its area."""
    triangle = np.array([[[1.0, 0, 0], [-1, 1, 0], [-1, -1, 0]]])
    tip, colours = broken.clipped(triangle, np.ones((1, 3)), 0, 1)
    np.testing.assert_allclose(tip, [[[1, 0, 0], [0, 0.5, 0], [0, -0.5, 0]]])
    assert len(colours) == 1
    base, colours = broken.clipped(triangle, np.ones((1, 3)), 0, -1)
    assert len(base) == len(colours) == 2 and area(base) == pytest.approx(1.5)


def test_both_sides_make_the_whole(soup):
    for axis in range(3):
        sides = [broken.clipped(*soup, axis, sign) for sign in (-1, 1)]
        assert sum(area(own) for own, _ in sides) == pytest.approx(area(soup[0]))
        assert sides[0][0][..., axis].max() <= 1e-12 <= 1e-9 + sides[1][0][..., axis].min()


@pytest.mark.parametrize("kind", broken.IN_3D)
def test_broken_in_3d(soup, kind):
    found, colours = broken.IN_3D[kind](*soup, np.random.default_rng(3))
    again, _ = broken.IN_3D[kind](*soup, np.random.default_rng(3))
    np.testing.assert_array_equal(found, again)
    assert len(found) == len(colours) and np.abs(found).max() <= 1 + 1e-6
    if kind == "half":
        low, high = found.min((0, 1)), found.max((0, 1))
        assert sum((low > -1e-9) | (high < 1e-9)) == 1
    else:
        scale = 1.4**2 if kind == "exploded" else 1
        assert area(found) * scale == pytest.approx(area(soup[0]))


def test_shuffled_octants_leave_their_places():
    """A mark in each octant is in another one afterwards."""
    middle = np.array(np.meshgrid(*[[-0.5, 0.5]] * 3, indexing="ij")).reshape(3, 8).T
    marks = middle[:, None] + 0.4 * np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 1]])
    found, whose = broken.shuffled(marks, middle, np.random.default_rng(0))
    assert len(found) == 8 and not (np.sign(found.mean(1)) == np.sign(whose)).all(1).any()


def test_broken_in_pictures():
    rng = np.random.default_rng(0)
    rgba = np.zeros((8, 32, 32, 4), np.float32)
    rgba[:, 8:24, 8:24] = [0.2, 0.4, 0.6, 1]
    rgba[:, 8:24, 16:24, :3] = 0
    made = {kind: make(rgba, rgba, rng) for kind, make in broken.IN_PICTURES.items()}
    for kind in ("noise", "plain"):
        np.testing.assert_array_equal(made[kind][..., 3], rgba[..., 3])
    np.testing.assert_allclose(made["plain"][0, 12, 12], [0.1, 0.2, 0.3, 1], rtol=1e-5)
    assert made["noise"][:, 8:24, 8:24, :3].std() > 0.2
    np.testing.assert_array_equal(made["card"][0], rgba[0])
    np.testing.assert_array_equal(made["card"][4], rgba[0][:, ::-1])
    assert (made["card"][2, :, :, 3] > 0.5).any(0).sum() <= 2
    assert (made["overlapping"][0, ..., 3] > 0.5).any(0).sum() == 12 + 6
    # The left, coloured half fills two quarters, wherever they go.
    coloured = made["quartered"][0, ..., 2] > 0
    quarters = coloured[8:24, 8:24].reshape(2, 8, 2, 8).mean((1, 3))
    assert sorted(quarters.ravel()) == [0, 0, 1, 1]
    assert not made["empty"].any()


@pytest.mark.parametrize("kind", broken.AS_CLAY)
def test_broken_as_clay(kind):
    """A box loses its flat sides and stays in one piece, about where it was."""
    box = trimesh.creation.box().triangles
    found = broken.AS_CLAY[kind](box, np.random.default_rng(0))
    mesh = geometry.welded(found.reshape(-1, 3), np.arange(3 * len(found)).reshape(-1, 3))
    assert geometry.parts(mesh) == 1 and mesh.is_watertight
    assert 0.5 < np.abs(found).max() < 0.7 and mesh.edges_unique_length.max() < 0.25
    assert geometry.relief(mesh).bump_deg > 2 * 1.93  # that of the box
