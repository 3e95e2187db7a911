"""Noise on the surface of a ball: Gaussian, white, and moving with the camera."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.rendering.cameras import orbit, rays
from dsd_jax.rendering.surface_noise import cell_noise, cell_numbers, of_view, of_views
from dsd_jax.rendering.volume import render

LATENTS, PIXELS, RADIUS = 16, 64, 0.6
KEY = jax.random.key(3)


def ball(camera, pixels=PIXELS):
    """Depth and opacity [H, W] of a hard ball."""
    origins, directions = rays(camera, pixels, pixels)
    closest = -jnp.sum(origins * directions, -1)
    inside = RADIUS**2 - jnp.sum((origins + closest[..., None] * directions) ** 2, -1)
    hit = inside > 0
    depth = closest - jnp.sqrt(jnp.maximum(inside, 0))
    return jnp.where(hit, depth, 0.0), hit.astype(jnp.float32)


def noise_at(azimuth, key=KEY, pixels=PIXELS, channels=4):
    """Noise of the ball with a screen noise that is 100 everywhere."""
    camera = orbit(azimuth, 0.2, 2.7, jnp.deg2rad(40))
    screen = jnp.full((LATENTS, LATENTS, channels), 100.0)
    return of_view(key, *ball(camera, pixels), camera, screen)


def correlation(a, b):
    both = (a != 100) & (b != 100)
    return float(np.corrcoef(np.asarray(a)[both], np.asarray(b)[both])[0, 1])


@pytest.mark.parametrize("pixels", [64, 24, 8])
def test_noise_of_seeds_is_unit_gaussian_and_white(pixels):
    """24 pixels are no multiple of 16 latents, and 8 are fewer."""
    keys = jax.random.split(jax.random.key(0), 400)
    noise = np.asarray(jax.jit(jax.vmap(lambda key: noise_at(0.3, key, pixels)))(keys))
    solid = noise[0, ..., 0] != 100
    assert 30 < solid.sum() < 120
    values = noise[:, solid]  # [seed, pixel, channel]
    assert np.abs(values.mean()) < 0.01
    np.testing.assert_allclose(values.var(), 1, atol=0.02)
    np.testing.assert_allclose(values.var(0), 1, atol=0.4)  # of each pixel, 400 draws
    np.testing.assert_allclose(np.mean(values**4), 3, atol=0.1)
    assert np.abs(np.mean(values[..., 0] * values[..., 1])) < 0.02
    beside = (noise[:, :, 1:] * noise[:, :, :-1])[:, solid[:, 1:] & solid[:, :-1]]
    assert np.abs(beside.mean()) < 0.25  # they share the cells on their border


def test_noise_moves_with_the_camera():
    """The same camera sees the same noise, a close one nearly, a distant one another."""
    one = noise_at(0.3)
    np.testing.assert_array_equal(one, noise_at(0.3))
    close, further, behind = (correlation(one, noise_at(0.3 + turn)) for turn in (0.01, 0.1, 3.0))
    assert close > 0.7 > further + 0.2
    assert abs(behind) < 0.15


def test_noise_follows_the_surface_not_the_screen():
    """A camera that moves sideways by one latent pixel sees the noise of a wall shift by one."""
    wall, camera = 2.2, orbit(0.0, 0.0, 2.7, jnp.deg2rad(40))
    step = 2 * wall * float(jnp.tan(camera.fov_y / 2)) / LATENTS
    matrix = camera.camera_to_world.at[0, 3].add(step)
    _, directions = rays(camera, PIXELS, PIXELS)
    depth = -wall / directions[..., 2]
    screen = jnp.zeros((LATENTS, LATENTS, 4))
    here, there = (
        of_view(KEY, depth, jnp.ones_like(depth), c, screen)
        for c in (camera, camera._replace(camera_to_world=matrix))
    )
    shifted = correlation(here[:, 1:], there[:, :-1])
    assert shifted > 0.8
    assert abs(correlation(here, there)) < 0.2


def test_screen_noise_where_there_is_no_matter():
    noise = noise_at(0.3)
    assert (noise[0] == 100).all() and (noise[8, 8] != 100).all()
    camera = orbit(0.3, 0.2, 2.7, 0.7)
    thin = jnp.full((PIXELS, PIXELS), 0.49)
    screen = jax.random.normal(KEY, (LATENTS, LATENTS, 4))
    np.testing.assert_array_equal(of_view(KEY, 2 + thin, thin, camera, screen), screen)


def test_cells_and_their_noise_are_pure_functions():
    points = jnp.array([[0.01, -0.01, 0.19], [0.09, -0.09, 0.11], [0.11, -0.01, 0.19]])
    cells = cell_numbers(points, 0.1)
    assert cells[0] == cells[1] != cells[2]
    noise = cell_noise(KEY, cells, 4)
    np.testing.assert_array_equal(noise[0], noise[1])
    assert not np.allclose(noise[0], noise[2])
    np.testing.assert_array_equal(noise[2], cell_noise(KEY, cells[2], 4))


@pytest.mark.parametrize("views", [1, 2])
def test_views_of_a_rendering(views):
    """As a step calls it: one view has no leading axis in its noise; no derivatives flow."""
    camera = orbit(jnp.arange(views) * 0.5, jnp.zeros(views), 2.7, 0.7)
    shape = (4, 4, 3) if views == 1 else (views, 4, 4, 3)

    def total(size):
        def soft_ball(x):
            return 30 * jax.nn.sigmoid(40 * (size - jnp.linalg.norm(x, axis=-1))), x

        def view(camera):
            return render(soft_ball, camera, None, height=8, width=8, samples_per_ray=16)

        noise = of_views(KEY, jax.vmap(view)(camera), camera, jnp.zeros(shape))
        return jnp.sum(noise**2), noise

    (_, noise), slope = jax.value_and_grad(total, has_aux=True)(0.6)
    assert noise.shape == shape and slope == 0
    assert np.abs(noise).max() > 0.1
