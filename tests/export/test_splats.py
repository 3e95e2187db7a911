"""Fields become Gaussian splats, and these look like the fields."""

import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.export import splats
from dsd_jax.export.field_grid import ExportedField
from dsd_jax.export.mesh import MeshSettings, make_mesh
from dsd_jax.export.splats import SplatSettings, make_splats, to_world
from dsd_jax.rendering.cameras import ring

pytestmark = pytest.mark.usefixtures("quick_compilation")
CAMERAS = ring([0, 120, 240], 20, 2.7, 40)
SMALL = SplatSettings(count=2000, steps=40, views=6, size=64, samples=32, tiles=64)
RED, BLUE = (0.8, 0.1, 0.1), (0.1, 0.2, 0.9)


def box(params, points):
    """Of half sides params, off the centre, red where x > 0 and blue elsewhere."""
    away = (jnp.abs(points - jnp.array([0.0, 0.1, 0])) - params).max(-1)
    red = points[:, :1] > 0
    return 200 / (1 + jnp.exp(120 * away)), jnp.where(red, jnp.array(RED), jnp.array(BLUE))


BOX = ExportedField(box, jnp.array([0.5, 0.3, 0.25]), 32)


@pytest.fixture(scope="module")
def made(quick_compilation):
    return make_splats(BOX, CAMERAS, SMALL)


def test_splats_look_like_the_field(made):
    assert made.psnr.shape == (3,) and made.psnr.min() > 22
    assert made.summary() == f"2000 splats, {made.psnr.mean():.1f} dB"
    assert made.report()["splats"] == 2000 and len(made.report()["psnr_db"]) == 3


def test_fitting_brings_them_nearer(made):
    barely = make_splats(BOX, CAMERAS, SplatSettings(**{**vars(SMALL), "steps": 1}))
    assert made.psnr.mean() > barely.psnr.mean() + 1


def test_they_lie_where_the_mesh_does(made, tmp_path):
    mesh = make_mesh(BOX, CAMERAS, MeshSettings(vertex_colours=True))
    assert made.scale == mesh.scale
    np.testing.assert_array_equal(made.origin, mesh.origin)
    low, high = made.splats.centres.min(0), made.splats.centres.max(0)
    np.testing.assert_allclose(low, mesh.model.vertices.min(0), atol=0.05)
    np.testing.assert_allclose(high, mesh.model.vertices.max(0), atol=0.05)
    world = to_world(made.splats, made.scale, made.origin)
    right = world.colours[world.centres[:, 0] > 0.1]
    np.testing.assert_allclose(np.median(right, axis=0), RED, atol=0.05)
    made.save(tmp_path / "box.ply")
    assert (tmp_path / "box.ply").stat().st_size < 68 * 2000 + 500


def test_an_empty_field_is_said_to_be_empty():
    def nothing(params, points):
        return jnp.zeros(len(points)), jnp.full((len(points), 3), 0.5)

    with pytest.raises(ValueError, match="the field is empty: nothing in it hides half"):
        make_splats(ExportedField(nothing, None, 16), CAMERAS, SMALL)


def test_splats_begin_flat_on_the_surface():
    """A square of two triangles that faces +x: evenly spread, its third axis along the normal."""
    corners = np.array([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]]) / 2
    faces, normals = np.array([[0, 1, 2], [0, 2, 3]]), np.tile([1.0, 0, 0], (4, 1))
    begun = splats.on_surface(BOX, corners, faces, normals, 400)
    np.testing.assert_allclose(begun.centres[:, 0], 0, atol=1e-6)
    quarters = np.histogram2d(*begun.centres[:, 1:].T, bins=2, range=[[-0.5, 0.5]] * 2)[0]
    assert quarters.min() > 90
    w, x, y, z = begun.rotations.T
    third = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)
    np.testing.assert_allclose(third, np.tile([1, 0, 0], (400, 1)), atol=1e-6)
    assert np.allclose(np.exp(begun.log_scales), 0.05 * np.array([0.7, 0.7, 0.2]))
