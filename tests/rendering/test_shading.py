"""The point light by hand, and the distribution of random lights."""

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.rendering.cameras import orbit
from dsd_jax.rendering.shading import PointLight, illumination, sample_light, surface_colour


def light(textureless=0.0):
    return PointLight(
        jnp.array([0.0, 2.0, 0.0]), jnp.float32(0.1), jnp.float32(0.8), jnp.float32(textureless)
    )


def test_lambert_by_hand():
    """Facing the light, at 60 degrees, and turned away."""
    normals = jnp.array([[0.0, 1, 0], [3**0.5 / 2, 0.5, 0], [0, -1, 0]])
    np.testing.assert_allclose(
        illumination(light(), jnp.zeros((3, 3)), normals), [0.9, 0.5, 0.1], rtol=1e-5
    )


def test_light_at_the_point_itself_is_finite():
    assert np.isfinite(illumination(light(), jnp.array([0.0, 2, 0]), jnp.array([0.0, 1, 0])))


def test_textureless_is_white():
    albedo = jnp.array([0.2, 0.6, 1.0])
    np.testing.assert_allclose(surface_colour(light(0.0), albedo), albedo)
    np.testing.assert_allclose(surface_colour(light(1.0), albedo), 1)


def test_random_lights_surround_the_camera():
    camera = orbit(1.0, 0.3, 2.7, 0.7)
    keys = jax.random.split(jax.random.key(0), 2000)
    lights = jax.vmap(lambda key: sample_light(key, camera, 0.25))(keys)
    distance = np.linalg.norm(lights.position, axis=-1)
    assert distance.min() >= 0.8 * 2.7 - 1e-4
    assert distance.max() <= 1.5 * 2.7 + 1e-4
    towards = np.mean(lights.position / distance[:, None], 0)
    camera_direction = np.asarray(camera.camera_to_world[:3, 3]) / 2.7
    assert towards @ camera_direction > 0.95 * np.linalg.norm(towards) > 0.3
    np.testing.assert_allclose(np.mean(lights.textureless), 0.25, atol=0.04)
    np.testing.assert_allclose(lights.ambient + lights.diffuse, 1, rtol=1e-6)
