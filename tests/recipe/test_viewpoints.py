"""Where a step looks from."""

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.recipe.parts import CameraSettings
from dsd_jax.recipe.viewpoints import Other, Reference, sample_viewpoints, viewpoint_at, visible


def test_viewpoints_are_spread_evenly_in_the_run_framing():
    cameras = CameraSettings(views=4, elevation_min_deg=10, elevation_max_deg=20)
    for seed in range(3):
        viewpoint, camera = sample_viewpoints(jax.random.key(seed), cameras)
        np.testing.assert_allclose(np.diff(viewpoint.azimuth), np.pi / 2, rtol=1e-5)
        assert 0 <= float(viewpoint.azimuth[0]) < 2 * np.pi
        assert len(set(viewpoint.elevation.tolist())) == 1
        assert 10 <= np.rad2deg(float(viewpoint.elevation[0])) <= 20
        np.testing.assert_array_equal(viewpoint.camera_to_world, camera.camera_to_world)
        position = camera.camera_to_world[:, :3, 3]
        np.testing.assert_allclose(jnp.linalg.norm(position, axis=-1), 2.7, rtol=1e-5)
        np.testing.assert_allclose(position[:, 1], 2.7 * jnp.sin(viewpoint.elevation), rtol=1e-5)
        np.testing.assert_allclose(camera.fov_y, np.deg2rad(40), rtol=1e-6)


def test_what_a_view_shows_of_a_picture_s_side():
    """All up to 60 degrees to either side, nothing from 90 on, half in between."""
    azimuths = jnp.deg2rad(jnp.array([0.0, 59, -59, 75, 285, 90, 180]))
    viewpoints, _ = viewpoint_at(azimuths, jnp.zeros(7), CameraSettings())
    np.testing.assert_allclose(visible(viewpoints), [1, 1, 1, 0.5, 0.5, 0, 0], atol=1e-5)


def test_several_pictures_show_more():
    """Another one from 180 degrees: what lies between them is half shown at 75 degrees."""
    azimuths = jnp.deg2rad(jnp.array([0.0, 75, 90, 105, 180, 240]))
    viewpoints, _ = viewpoint_at(azimuths, jnp.zeros(6), CameraSettings())
    others = (Other(jnp.pi, Reference(jnp.zeros(()), jnp.zeros((2, 2, 3)), jnp.zeros((2, 2)))),)
    np.testing.assert_allclose(visible(viewpoints, others), [1, 0.5, 0, 0.5, 1, 1], atol=1e-5)
