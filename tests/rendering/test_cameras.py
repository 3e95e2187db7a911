"""Where cameras stand and what their pixels see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.rendering.cameras import camera_at, orbit, rays, ring


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg", "direction"),
    [(0, 0, (0, 0, 1)), (90, 0, (1, 0, 0)), (180, 0, (0, 0, -1)), (0, 30, (0, 0.5, 3**0.5 / 2))],
)
def test_orbit_position(azimuth_deg, elevation_deg, direction):
    camera = orbit(np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg), 2.0, 0.7)
    position = camera.camera_to_world[:3, 3]
    np.testing.assert_allclose(position, 2 * np.array(direction), atol=1e-6)


def test_axes_are_a_right_handed_frame_that_looks_at_the_origin():
    camera = orbit(jnp.array([0.3, 2.0]), jnp.array([-0.4, 1.2]), 2.7, 0.7)
    for matrix in camera.camera_to_world:
        rotation, position = matrix[:3, :3], matrix[:3, 3]
        np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-6)
        np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-6)
        np.testing.assert_allclose(rotation[:, 2] * 2.7, position, atol=1e-6)
        assert rotation[1, 1] > 0
        np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])


def test_ray_layout_of_a_front_camera():
    """Row 0 is the top, column 0 the left: for a camera on +z that is +y and -x."""
    fov = np.deg2rad(40)
    origins, directions = rays(orbit(0.0, 0.0, 2.7, fov), 4, 6)
    assert origins.shape == directions.shape == (4, 6, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(origins, np.broadcast_to([0, 0, 2.7], (4, 6, 3)), atol=1e-6)
    assert directions[0, 3, 1] > 0 > directions[3, 3, 1]
    assert directions[1, 0, 0] < 0 < directions[1, 5, 0]
    slope = -np.asarray(directions) / np.asarray(directions)[..., 2:]
    np.testing.assert_allclose(slope[0, 0, 1], np.tan(fov / 2) * 3 / 4, rtol=1e-5)
    np.testing.assert_allclose(slope[0, 0, 0], -np.tan(fov / 2) * 1.5 * 5 / 6, rtol=1e-5)


def test_offset_rays_are_those_of_a_finer_picture():
    """Row 1, column 2 of each 3 x 3 pixels: (1.5 / 3, 2.5 / 3) into the coarse pixel."""
    camera = orbit(0.3, 0.2, 2.7, 0.7)
    _, fine = rays(camera, 6, 9)
    _, ours = rays(camera, 2, 3, (1.5 / 3 - 0.5, 2.5 / 3 - 0.5))
    np.testing.assert_allclose(ours, fine[1::3, 2::3], atol=1e-6)


def test_the_middle_ray_hits_the_origin():
    for azimuth, elevation in [(0.0, 0.0), (1.0, 0.4), (4.0, -0.2)]:
        origins, directions = rays(orbit(azimuth, elevation, 2.7, 0.7), 3, 3)
        np.testing.assert_allclose(origins[1, 1] + 2.7 * directions[1, 1], 0, atol=1e-6)


def test_stacked_cameras_vmap():
    cameras = orbit(jnp.array([0.0, 1.0]), 0.2, 2.7, 0.7)
    _, together = jax.vmap(lambda c: rays(c, 2, 3))(cameras)
    _, alone = rays(orbit(1.0, 0.2, 2.7, 0.7), 2, 3)
    np.testing.assert_allclose(together[1], alone, atol=1e-6)


def test_a_ring_is_made_of_orbits_in_numpy():
    cameras = ring([0, 45, 200], 15, 2.7, 40)
    assert all(type(leaf) is np.ndarray and leaf.dtype == np.float32 for leaf in cameras)
    alone = orbit(jnp.deg2rad(200.0), jnp.deg2rad(15.0), 2.7, jnp.deg2rad(40.0))
    for leaf, expected in zip(camera_at(cameras, 2), alone, strict=True):
        np.testing.assert_allclose(leaf, expected, atol=2e-6)
