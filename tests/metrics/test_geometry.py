"""What is measured of meshes, against what is worked out by hand."""

import numpy as np
import pytest
import trimesh

from dsd_jax.metrics import geometry


def welded(mesh: trimesh.Trimesh, offset=(0.0, 0.0, 0.0)) -> trimesh.Trimesh:
    return geometry.welded(mesh.vertices + offset, mesh.faces)


def together(*meshes: trimesh.Trimesh) -> trimesh.Trimesh:
    return welded(trimesh.util.concatenate(meshes))


@pytest.fixture
def cube() -> trimesh.Trimesh:
    return trimesh.creation.box()


def test_the_edges_of_a_cube(cube):
    """12 edges of 90 degrees and length 1 among 18: the diagonals of its sides are flat."""
    angle_deg, length = geometry.dihedrals(welded(cube))
    np.testing.assert_allclose(np.sort(angle_deg), [0] * 6 + [90] * 12, atol=1e-9)
    np.testing.assert_allclose(length[angle_deg < 1], np.sqrt(2))
    np.testing.assert_allclose(length[angle_deg > 1], 1)


def test_a_cube(cube):
    """Its area 6, in 10,000 triangles of sides 0.0372, has edges of length 558.4."""
    found = geometry.measure(welded(cube))
    assert found == {
        "bump_deg": pytest.approx(90 * 12 / 558.4, rel=1e-4),
        "creased_share": pytest.approx(12 / 558.4, rel=1e-4),
        "parts": 1, "watertight": True, "volume": pytest.approx(1), "self_intersecting": 0,
    }  # fmt: skip


def test_bump_asks_for_the_shape_alone(cube):
    """Not for size, triangles, doubled vertices or faces, nor how faces are wound."""
    plain = geometry.relief(welded(cube))
    soup = cube.triangles.reshape(-1, 3)
    for mesh in (
        cube.copy().apply_scale(7),
        cube.subdivide().subdivide(),
        trimesh.Trimesh(soup, np.arange(36).reshape(-1, 3), process=False),
        trimesh.Trimesh(cube.vertices, np.where(np.arange(12)[:, None] % 3, cube.faces,
                                                cube.faces[:, ::-1]), process=False),
        trimesh.Trimesh(cube.vertices, np.concatenate([cube.faces, cube.faces[:, ::-1]]),
                        process=False),
    ):  # fmt: skip
        assert geometry.relief(welded(mesh)) == pytest.approx(plain)


@pytest.mark.parametrize(("level", "creased"), [(1, 0.094), (2, 0.184), (4, 0.0)])
def test_a_sphere(level, creased):
    """2 pi r times the angle of its curvature, over edges of 10,000 triangles; few facets are
    creases, of the length that they have; many are not, for they bend by 2 degrees."""
    sphere = welded(trimesh.creation.icosphere(level))
    found = geometry.relief(sphere)
    edges = 15_000 * np.sqrt(16 * np.pi / np.sqrt(3) / 10_000)
    assert found.bump_deg == pytest.approx(np.degrees(8 * np.pi) / edges, rel=0.06)
    own = sphere.edges_unique_length.sum() / edges
    assert found.creased_share == pytest.approx(own if creased else 0, rel=0.06)
    assert found.creased_share == pytest.approx(creased, abs=0.01)


def test_what_is_finer_than_10_000_faces_is_simplified():
    sphere = welded(trimesh.creation.icosphere(5))
    rough = np.random.default_rng(0).normal(size=sphere.vertices.shape) * 0.005
    crumpled = welded(trimesh.Trimesh(sphere.vertices + rough, sphere.faces))
    smooth, rough = geometry.relief(sphere), geometry.relief(crumpled)
    assert smooth.bump_deg == pytest.approx(1.8, abs=0.3) and smooth.creased_share < 0.03
    assert rough.bump_deg > 5 * smooth.bump_deg and rough.creased_share > 0.7


def test_an_open_box(cube):
    found = geometry.measure(welded(trimesh.Trimesh(cube.vertices, cube.faces[:-2])))
    assert not found["watertight"] and found["volume"] is None and found["parts"] == 1


def test_two_parts(cube):
    apart = together(cube, cube.copy().apply_translation([2, 0, 0]))
    found = geometry.measure(apart)
    assert found["parts"] == 2 and found["watertight"]
    assert found["volume"] == pytest.approx(2) and found["self_intersecting"] == 0


def test_two_cubes_in_one_another(cube):
    """Three sides of each, of two triangles, are crossed by the other."""
    overlapping = together(cube, cube.copy().apply_translation([0.5, 0.4, 0.3]))
    found = geometry.self_intersecting(overlapping)
    sides = overlapping.face_normals.sum(1) > 0
    first = np.arange(24) < 12
    np.testing.assert_array_equal(found, np.where(first, sides, ~sides))
    assert geometry.measure(overlapping)["parts"] == 2


def test_faces_that_touch_or_share_corners():
    """A face through another that has one of its corners does cut it; one that touches does not."""
    vertices = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [1, 1, -1], [0.5, 0.5, 1], [0, 0, 1.0]])
    cut = geometry.welded(vertices, np.array([[0, 1, 2], [0, 3, 4]]))
    assert geometry.self_intersecting(cut).all()
    fan = geometry.welded(vertices, np.array([[0, 1, 2], [0, 1, 5], [1, 2, 5]]))
    assert not geometry.self_intersecting(fan).any()


def test_self_intersections_against_every_pair(monkeypatch):
    """Of triangles anywhere, a few pairs at a time: the segment in which two planes meet is in
    both where, along it, the intervals of both overlap."""
    monkeypatch.setattr(geometry, "_CHUNK", 50)
    corners = np.random.default_rng(0).uniform(size=(60, 3, 3)) * 0.4
    corners += np.random.default_rng(1).uniform(size=(60, 1, 3))
    mesh = geometry.welded(corners.reshape(-1, 3), np.arange(180).reshape(-1, 3))
    rows = range(60)
    expected = [any(_meet(corners[i], corners[j]) for j in rows if j != i) for i in rows]
    np.testing.assert_array_equal(geometry.self_intersecting(mesh), expected)
    assert 5 < sum(expected) < 55


def _meet(one, other) -> bool:
    """Whether two triangles in general position meet, by the intervals on their planes' line."""
    normals = [np.cross(t[1] - t[0], t[2] - t[0]) for t in (one, other)]
    line = np.cross(*normals)
    intervals = []
    for own, normal, origin in ((one, normals[1], other[0]), (other, normals[0], one[0])):
        height, along = (own - origin) @ normal, own @ line
        ends = [
            along[i] + (along[j] - along[i]) * height[i] / (height[i] - height[j])
            for i, j in ((0, 1), (1, 2), (2, 0))
            if height[i] * height[j] < 0
        ]
        if not ends:
            return False
        intervals.append(ends)
    (a, b), (c, d) = (sorted(ends) for ends in intervals)
    return max(a, c) < min(b, d)


def test_a_mesh_without_faces_is_refused():
    with pytest.raises(ValueError, match="without faces"):
        geometry.welded(np.zeros((3, 3)), np.array([[0, 1, 2]]))
