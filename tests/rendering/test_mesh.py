"""The ray caster against Moeller-Trumbore in float64, and pictures that can be worked by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.rendering import mesh
from dsd_jax.rendering.cameras import Camera, orbit, rays

FOV = float(np.radians(40))
FLAT = mesh.Lights(jnp.ones(()), jnp.array([[0.0, 0, 1]]), jnp.zeros(1))


@pytest.fixture(autouse=True)
def short_loop_body(monkeypatch):
    """Compiles in a quarter of the time."""
    monkeypatch.setattr(mesh, "_UNROLL", 4)


def moeller_trumbore(triangles, origins, directions):
    """Nearest face [p], distance [p], and how far each ray is from any triangle's edge [p]."""
    v0, v1, v2 = np.moveaxis(triangles.astype(np.float64), 1, 0)
    origins, directions = (np.asarray(a, np.float64)[:, None] for a in (origins, directions))
    h = np.cross(directions, v2 - v0)
    a = (h * (v1 - v0)).sum(-1)
    s = origins - v0
    u = (s * h).sum(-1) / a
    q = np.cross(s, v1 - v0)
    v = (directions * q).sum(-1) / a
    t = ((v2 - v0) * q).sum(-1) / a
    margin = np.minimum(np.minimum(u, v), 1 - u - v)
    t = np.where((margin >= 0) & (t > 0), t, np.inf)
    return np.where(np.isinf(t).all(1), -1, t.argmin(1)), t.min(1), np.abs(margin).min(1)


def square(size, z=0.0):
    """Two triangles: |x|, |y| <= size at z, facing +z."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size
    vertices = np.concatenate([corners, np.full((4, 1), z)], 1).astype(np.float32)
    return vertices, np.array([[0, 1, 2], [0, 2, 3]])


def cube(size):
    """Twelve triangles, |x|, |y|, |z| <= size."""
    vertices = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * size
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return vertices.astype(np.float32), np.array(faces)


def ball(rings=12, sectors=24):
    """Latitude-longitude triangles of the unit sphere, the poles' slivers included."""
    polar, around = np.linspace(0, np.pi, rings + 1), np.arange(sectors) * 2 * np.pi / sectors
    p, a = np.meshgrid(polar, around, indexing="ij")
    vertices = np.stack([np.sin(p) * np.cos(a), np.cos(p), np.sin(p) * np.sin(a)], -1)
    index = np.arange((rings + 1) * sectors).reshape(rings + 1, sectors)
    low, high = index[:-1], index[1:]
    low_next, high_next = np.roll(low, -1, 1), np.roll(high, -1, 1)
    faces = np.stack([[low, high, high_next], [low, high_next, low_next]]).reshape(2, 3, -1)
    return vertices.reshape(-1, 3).astype(np.float32), np.moveaxis(faces, 1, 2).reshape(-1, 3)


def picture(vertices, faces, camera, rgb=(1.0, 0.0, 0.0), lights=FLAT, **settings):
    colours = jnp.broadcast_to(jnp.asarray(rgb, jnp.float32), (len(faces), 3))
    render = jax.jit(functools.partial(mesh.render_mesh, **settings))
    return np.asarray(render(vertices, faces, colours, camera, lights))


@pytest.mark.parametrize("jit", [False, True])
def test_cast_agrees_with_moeller_trumbore(jit):
    rng = np.random.default_rng(0)
    triangles = rng.normal(size=(45, 1, 3)) * 0.4 + rng.normal(size=(45, 3, 3)) * 0.4
    triangles = triangles.astype(np.float32)
    camera = orbit(0.7, 0.4, 2.7, 0.9)
    cast = functools.partial(mesh.cast, height=20, width=30)
    face, t = (jax.jit(cast) if jit else cast)(triangles, camera)
    origins, directions = (np.asarray(a).reshape(-1, 3) for a in rays(camera, 20, 30))
    face_ref, t_ref, margin = moeller_trumbore(triangles, origins, directions)
    clear = margin > 1e-3
    assert clear.mean() > 0.9 and 0.2 < (face_ref >= 0).mean() < 0.95
    np.testing.assert_array_equal(np.asarray(face).ravel()[clear], face_ref[clear])
    np.testing.assert_allclose(np.asarray(t).ravel()[clear], t_ref[clear], rtol=2e-5)


def test_nothing_behind_the_camera_is_seen():
    vertices, faces = square(1.0, z=5.0)
    assert picture(vertices, faces, orbit(0.0, 0.0, 2.7, FOV), resolution=8).max() == 0


def test_silhouette_of_a_cube():
    size, distance, resolution, supersample = 0.5, 2.7, 32, 3
    image = picture(
        *cube(size),
        orbit(0.0, 0.0, distance, FOV),
        resolution=resolution,
        supersample=supersample,
    )
    half_width = size / ((distance - size) * np.tan(FOV / 2))  # of the front face, in ndc
    samples = np.round(half_width * resolution * supersample / 2) * 2  # across, by symmetry
    assert image[..., 3].sum() == pytest.approx((samples / supersample) ** 2, rel=1e-5)
    np.testing.assert_allclose(image[..., 3].mean(), half_width**2, rtol=0.05)


def test_both_sides_are_visible_and_alike():
    vertices, faces = cube(0.5)
    camera = orbit(0.6, 0.3, 2.7, FOV)
    lights = mesh.Lights(jnp.array(0.5), jnp.array([[0.6, 0.0, 0.8]]), jnp.array([0.4]))
    image = picture(vertices, faces, camera, lights=lights, resolution=16)
    flipped = picture(vertices, faces[:, ::-1], camera, lights=lights, resolution=16)
    np.testing.assert_allclose(image, flipped, atol=1e-6)
    assert image[8, 8, 3] == 1


def test_nearest_face_wins():
    near, far = square(0.5, z=0.2), square(0.5, z=-0.2)
    vertices = np.concatenate([near[0], far[0]])
    faces = np.concatenate([near[1], far[1] + 4])
    red, blue = [1.0, 0, 0], [0, 0, 1.0]
    colours = np.array([red, red, blue, blue])
    for azimuth, expected in ((0.0, red), (np.pi, blue)):
        camera = orbit(azimuth, 0.0, 2.7, FOV)
        image = picture(vertices, faces, camera, colours, resolution=8)
        np.testing.assert_allclose(image[4, 4], [*expected, 1], atol=1e-6)


def test_edges_are_antialiased_and_premultiplied():
    vertices, faces = square(1.0)
    vertices[:, 0] = np.where(vertices[:, 0] > 0, 0.25 * 2.7 * np.tan(FOV / 2), -3)
    vertices[:, 1] *= 3
    image = picture(vertices, faces, orbit(0, 0, 2.7, FOV), (0.8, 0.4, 0.2), resolution=4)
    np.testing.assert_allclose(image[..., 3], [[1, 1, 0.5, 0]] * 4, atol=1e-6)
    np.testing.assert_allclose(image[1, 2], [0.4, 0.2, 0.1, 0.5], atol=1e-6)


def test_degenerate_faces_never_hit():
    vertices, faces = cube(0.4)
    camera = orbit(0.3, 0.2, 2.7, FOV)
    plain = picture(vertices, faces, camera, resolution=8)
    padded = picture(vertices, np.pad(faces, ((0, 40), (0, 0))), camera, resolution=8)
    np.testing.assert_array_equal(plain, padded)
    line = np.array([[[-1, 0, 0], [0, 0, 0], [1, 0, 0]], [[0, -1, 0], [0, 1, 0], [0, 0, 9.0]]])
    # a line, and a triangle seen exactly from its edge
    camera = orbit(0.0, 0.0, 2.7, FOV)
    image = picture(line.reshape(6, 3), np.arange(6).reshape(2, 3), camera, resolution=8)
    np.testing.assert_array_equal(image, 0)


def test_a_closed_surface_has_no_cracks():
    image = picture(*ball(), orbit(0.3, 0.5, 2.7, FOV), resolution=48, supersample=3)
    y, x = np.mgrid[:48, :48]
    inside = np.hypot(x - 23.5, y - 23.5) < 22
    np.testing.assert_array_equal(image[inside][:, 3], 1)


def test_shading_by_hand():
    vertices, faces = square(0.5)
    triangles = jnp.asarray(vertices[faces])
    lights = mesh.Lights(
        jnp.array(0.5), jnp.array([[0, 0, 1.0], [0, 0.6, 0.8]]), jnp.array([0.3, 0.2])
    )
    rgb = jnp.array([[1.0, 0.5, 0.0]] * 2)
    front = mesh.shade(triangles, rgb, orbit(0.0, 0.0, 2.7, FOV), lights)
    np.testing.assert_allclose(front, np.array([[1, 0.5, 0]] * 2) * (0.5 + 0.3 + 0.16), rtol=1e-6)
    back = mesh.shade(triangles, rgb, orbit(np.pi, 0.0, 2.7, FOV), lights)
    np.testing.assert_allclose(back, np.array([[1, 0.5, 0]] * 2) * 0.5, rtol=1e-6)
    bright = mesh.Lights(jnp.array(3.0), lights.directions, lights.intensities)
    assert mesh.shade(triangles, rgb, orbit(0.0, 0.0, 2.7, FOV), bright).max() == 1


def test_vmap_over_views_equals_one_by_one():
    triangles = jnp.asarray(np.take(*cube(0.5), axis=0))
    rgb = jnp.linspace(0, 1, 36).reshape(12, 3)
    cameras = orbit(np.array([0.1, 2.0]), np.array([0.2, -0.1]), 2.7, FOV)
    lights = mesh.Lights(
        jnp.array([0.5, 0.7]), jnp.array([[[0, 0, 1.0]], [[1.0, 0, 0]]]), jnp.array([[0.3], [0.2]])
    )

    def render(camera, lights):
        return mesh.render_triangles(triangles, rgb, camera, lights, resolution=8)

    together, render = jax.jit(jax.vmap(render))(cameras, lights), jax.jit(render)
    for view in range(2):
        one = render(
            Camera(*(leaf[view] for leaf in cameras)),
            mesh.Lights(*(leaf[view] for leaf in lights)),
        )
        np.testing.assert_allclose(together[view], one, atol=1e-5)
