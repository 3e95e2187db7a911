"""Fragments of triangles, against brute force and against the ray caster."""

import jax
import numpy as np

from dsd_jax.export import raster
from dsd_jax.rendering.cameras import orbit, ring
from dsd_jax.rendering.mesh import cast


def test_fragments_are_the_pixel_centres_inside():
    corners = np.random.default_rng(0).uniform(-4, 14, (20, 3, 2))
    corners[0, 2] = (corners[0, 0] + corners[0, 1]) / 2  # without area
    found = raster.rasterise(corners, 8, 10)
    y, x = np.mgrid[:8, :10] + 0.5
    seen = set()
    for face, triangle in enumerate(corners):
        ones = np.concatenate([triangle, np.ones((3, 1))], 1).T
        if abs(np.linalg.det(ones)) < 1e-9:
            continue
        weights = np.linalg.solve(ones, np.stack([x.ravel(), y.ravel(), np.ones(80)]))
        seen |= {(face, int(i)) for i in np.flatnonzero((weights >= 0).all(0))}
    assert seen == set(zip(found.face.tolist(), found.pixel.tolist(), strict=True))
    assert len(seen) > 50
    at = np.einsum("mk,mki->mi", found.weights, corners[found.face])
    np.testing.assert_allclose(at[:, 0], found.pixel % 10 + 0.5)
    np.testing.assert_allclose(at[:, 1], found.pixel // 10 + 0.5)


def test_the_nearest_face_is_the_ray_casters():
    rng = np.random.default_rng(1)
    vertices = rng.uniform(-0.7, 0.7, (30, 3))
    faces = rng.permutation(30).reshape(10, 3)
    camera = orbit(0.7, 0.3, 2.7, 0.7)
    theirs, t = jax.jit(cast, static_argnums=(2, 3))(vertices[faces], camera, 24, 24)
    found = raster.visible(vertices, faces, camera, 24, cull=False)
    ours = np.full(24 * 24, -1)
    ours[found.pixel] = found.face
    np.testing.assert_array_equal(ours.reshape(24, 24), theirs)
    np.testing.assert_allclose(found.weights.sum(1), 1)
    points = np.einsum("mk,mki->mi", found.weights, vertices[faces[found.face]])
    away = np.linalg.norm(points - np.asarray(camera.camera_to_world[:3, 3]), axis=1)
    np.testing.assert_allclose(away, np.asarray(t).ravel()[found.pixel], rtol=1e-3)


def test_faces_seen_from_behind_are_left_out():
    vertices = np.array([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]])
    front, back = (orbit(azimuth, 0.0, 2.7, 0.7) for azimuth in (0, np.pi))
    assert len(raster.visible(vertices, np.array([[0, 1, 2]]), front, 8).face) > 10
    assert len(raster.visible(vertices, np.array([[0, 1, 2]]), back, 8).face) == 0


def test_textures_are_read_between_texels():
    texture = np.zeros((2, 4, 3), np.uint8)
    texture[:, 1], texture[1, 3] = 255, 51
    uv = np.array([[1.5 / 4, 0.5], [0.25, 0.5], [1.0, 1.0], [3.5 / 4, 0.5]])
    np.testing.assert_allclose(raster.sample_texture(texture, uv)[:, 0], [1, 0.5, 0.2, 0.1])


def test_points_behind_a_face_are_not_seen():
    """A square at z = 0 before one at z = -0.5 twice as wide, from the front and from behind."""
    square = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    vertices = np.concatenate([0.2 * square, 0.4 * square - [0, 0, 0.5]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    points = np.array([[0.1, 0.1, 0], [0.1, 0.1, -0.5], [0.38, 0, -0.5], [9, 0, 0]])
    for azimuths, expected in (
        ((0,), [1, 0, 1, 0]),
        ((180,), [0, 1, 1, 0]),
        ((0, 180), [1] * 3 + [0]),
    ):
        found = raster.seen(points, vertices, faces, ring(azimuths, 0, 2.7, 40), 64)
        assert found.tolist() == [bool(x) for x in expected]
