"""Splats are drawn as their equation says, whatever the tiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dsd_jax.rendering import splats as rendering
from dsd_jax.rendering.cameras import orbit
from dsd_jax.rendering.splats import Splats

pytestmark = pytest.mark.usefixtures("quick_compilation")
SIZE, GREY = 32, 0.8
CAMERA = orbit(0.4, 0.3, 2.7, np.deg2rad(40), np)


def some(count: int, scale: float, seed: int = 0) -> Splats:
    rng = np.random.default_rng(seed)
    parts = (
        rng.uniform(-0.5, 0.5, (count, 3)),
        np.log(scale) + rng.uniform(-1, 0, (count, 3)),
        rng.normal(size=(count, 4)),
        rng.normal(1, 2, count),
        rng.uniform(0, 1, (count, 3)),
    )
    return Splats(*(np.asarray(part, np.float32) for part in parts))


def by_hand(splats: Splats, camera, size: int) -> np.ndarray:
    """Every splat at every pixel, from back to front, by NumPy alone."""
    pose = np.asarray(camera.camera_to_world, np.float64)
    focal = size / 2 / np.tan(camera.fov_y / 2)
    x, y, z = ((splats.centres - pose[:3, 3]) @ pose[:3, :3] * [1, -1, -1]).T  # OpenCV's
    to_camera = (pose[:3, :3] * [1, -1, -1]).T
    column, row = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    picture = np.dstack([np.full((size, size, 3), GREY), np.zeros((size, size))])
    for i in np.argsort(-z):
        axes = Rotation.from_quat(np.roll(splats.rotations[i], -1)).as_matrix()
        spread = axes @ np.diag(np.exp(2 * splats.log_scales[i])) @ axes.T
        slope = focal / z[i] * np.array([[1, 0, -x[i] / z[i]], [0, 1, -y[i] / z[i]]]) @ to_camera
        flat = slope @ spread @ slope.T + 0.3 * np.eye(2)
        away = np.stack([column - size / 2 - focal * x[i] / z[i],
                         row - size / 2 - focal * y[i] / z[i]], -1)  # fmt: skip
        power = np.einsum("hwi,ij,hwj->hw", away, np.linalg.inv(flat), away)
        alpha = np.minimum(np.exp(-power / 2) / (1 + np.exp(-splats.logits[i])), 0.99)
        alpha = np.where(alpha < 1 / 255, 0, alpha)[..., None]
        picture = alpha * [*splats.colours[i], 1] + (1 - alpha) * picture
    return picture


def test_a_picture_is_what_the_equation_says():
    splats = some(60, 0.1)
    drawn = jax.jit(lambda s: rendering.render(s, CAMERA, SIZE, background=GREY))(splats)
    expected = by_hand(splats, CAMERA, SIZE)
    assert 0.2 < expected[..., 3].mean() < 0.9
    # three standard deviations out 0.011 of a splat is left, where its tiles end
    assert np.abs(drawn - expected).mean() < 1e-3 and np.abs(drawn - expected).max() < 0.02


def test_tiles_do_not_show():
    """Splats that reach no further than a tile are the same in tiles of any size."""
    splats = some(40, 0.05, seed=1)
    drawn = [rendering.render(splats, CAMERA, SIZE, tile, 64) for tile in (8, 16)]
    assert np.abs(drawn[0] - drawn[1]).max() < 0.02
    assert np.abs(drawn[0] - drawn[1]).mean() < 2e-4


def test_a_tile_shows_its_nearest_splats():
    """Of a red one before a blue one, both opaque, and what stands behind the camera."""
    towards = np.array([np.sin(0.4) * np.cos(0.3), np.sin(0.3), np.cos(0.4) * np.cos(0.3)])
    centres = np.stack([-0.3 * towards, 0.3 * towards, 4 * towards]).astype(np.float32)
    colours = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], np.float32)
    splats = Splats(
        centres, np.full((3, 3), np.log(0.1), np.float32), np.ones((3, 4), np.float32),
        np.full(3, 9, np.float32), colours,
    )  # fmt: skip
    for most in (1, 3):
        middle = rendering.render(splats, CAMERA, SIZE, 8, most)[15:17, 15:17].mean((0, 1))
        np.testing.assert_allclose(middle[:3], [1, 0, 0], atol=0.1)
    flat = rendering.flatten(splats, CAMERA, SIZE)
    assert list(rendering.members(flat, SIZE, 8, 3)[0][5]) == [1, 2, 3]  # sorted; 3 is none


def test_gradients_are_those_of_finite_differences():
    splats = jax.tree.map(jnp.asarray, some(8, 0.15, seed=2))
    target = rendering.render(jax.tree.map(jnp.asarray, some(8, 0.15, seed=3)), CAMERA, SIZE)

    @jax.jit
    def loss(splats):
        return jnp.square(rendering.render(splats, CAMERA, SIZE) - target).sum()

    gradient = jax.jit(jax.grad(loss))(splats)
    rng = np.random.default_rng(0)
    for name in Splats._fields:
        leaf = getattr(splats, name)
        direction = rng.normal(size=leaf.shape).astype(np.float32)
        ends = [loss(splats._replace(**{name: leaf + e * direction})) for e in (2e-3, -2e-3)]
        along = float((getattr(gradient, name) * direction).sum())
        assert along == pytest.approx(float(ends[0] - ends[1]) / 4e-3, rel=0.1, abs=0.1), name
