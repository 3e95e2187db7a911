"""Regularisers on arrays worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.rendering import regularisers
from dsd_jax.rendering.cameras import orbit, rays
from dsd_jax.rendering.volume import Rendering


def rendering(weights, distances=None, normal=None, sample_normals=None, directions=None):
    """A Rendering of [h, w, s] weights at distances 1, 2, ... with lengths 0.5."""
    weights = jnp.asarray(weights, jnp.float32)
    h, w, s = weights.shape
    if distances is None:
        distances = jnp.broadcast_to(jnp.arange(1.0, s + 1), weights.shape)
    opacity = jnp.sum(weights, -1)
    depth = jnp.sum(weights * distances, -1) / jnp.maximum(opacity, 1e-6)
    if directions is None:
        directions = jnp.broadcast_to(jnp.array([0.0, 0, -1]), (h, w, 3))
    return Rendering(
        rgb=jnp.zeros((h, w, 3)), opacity=opacity, depth=depth, normal=normal, weights=weights,
        distances=distances, deltas=jnp.full(weights.shape, 0.5), directions=directions,
        sample_normals=sample_normals,
    )  # fmt: skip


def test_orientation_counts_only_normals_that_face_away():
    """Ray along -z; normals at 0, 60 and 120 degrees from it: cos^2 = 1, 1/4 and nothing."""
    normals = np.array([[0, 0, -1], [3**0.5 / 2, 0, -0.5], [3**0.5 / 2, 0, 0.5]])
    r = rendering([[[0.2, 0.4, 0.3]], [[0, 0, 0]]], sample_normals=jnp.tile(normals, (2, 1, 1, 1)),
                  normal=jnp.zeros((2, 1, 3)))  # fmt: skip
    np.testing.assert_allclose(regularisers.orientation(r), (0.2 + 0.1) / 2, rtol=1e-5)


def test_orientation_of_surface_normals_weighs_by_opacity_without_gradient():
    normal = jnp.array([[[0.0, 0.6, -0.8]], [[0, 0, 1.0]]])
    r = rendering([[[0.3, 0.2]], [[0.5, 0.5]]], normal=normal)
    np.testing.assert_allclose(regularisers.orientation(r), 0.5 * 0.64 / 2, rtol=1e-5)
    slope = jax.grad(lambda o: regularisers.orientation(r._replace(opacity=o)))(r.opacity)
    assert not np.any(slope)


def test_sparsity_and_opaque_by_hand():
    r = rendering([[[0.5]], [[0.0]]])
    np.testing.assert_allclose(
        regularisers.sparsity(r), (np.sqrt(0.26) + np.sqrt(0.01)) / 2, rtol=1e-5
    )
    edge = -(1e-3 * np.log(1e-3) + (1 - 1e-3) * np.log(1 - 1e-3))
    np.testing.assert_allclose(regularisers.opaque(r), (np.log(2) + edge) / 2, rtol=1e-4)


def test_z_variance_ignores_thin_rays():
    """Weights 0.3, 0.3 at depths 1, 3 vary by 1; the second ray is too thin to count."""
    r = rendering([[[0.3, 0.0, 0.3], [0.2, 0.0, 0.2]]])
    np.testing.assert_allclose(regularisers.z_variance(r), 1.0, rtol=1e-5)
    assert regularisers.z_variance(rendering([[[0.1, 0.1]]])) == 0


def test_distortion_matches_the_double_sum():
    weights = jax.random.uniform(jax.random.key(0), (3, 2, 6)) / 6
    distances = jnp.sort(jax.random.uniform(jax.random.key(1), (3, 2, 6)), -1)
    r = rendering(weights, distances)
    w, t = np.asarray(weights), np.asarray(distances)
    between = np.einsum("hwi,hwj,hwij->hw", w, w, np.abs(t[..., :, None] - t[..., None, :]))
    within = np.sum(w**2, -1) * 0.5 / 3
    np.testing.assert_allclose(regularisers.distortion(r), np.mean(between + within), rtol=1e-5)


def test_entropy_of_one_and_of_equal_weights():
    one, equal = rendering([[[0.8, 0, 0, 0]]]), rendering([[[0.2, 0.2, 0.2, 0.2]]])
    np.testing.assert_allclose(regularisers.entropy(one), 0, atol=1e-5)
    np.testing.assert_allclose(regularisers.entropy(equal), 0.8 * np.log(4), rtol=1e-5)


def test_keep_in_ball_by_hand():
    """A camera at distance 2.7: samples at 1.7 and 2.7 along the ray lie at radius 1 and 0."""
    camera = orbit(0.0, 0.0, 2.7, 0.1)
    _, directions = rays(camera, 1, 1)
    r = rendering([[[0.5, 0.25]]], jnp.array([[[1.7, 2.7]]]), directions=directions)
    np.testing.assert_allclose(
        regularisers.keep_in_ball(r, camera, radius=0.8), 0.5 * 0.2**2, rtol=1e-4
    )


def test_total_variation_counts_neighbours_inside_the_object():
    """One row of opaque 0, 0.3, 0.9 and an empty 0: (0.3 + 0.6) / 2, all three channels alike."""
    r = rendering([[[1.0], [1.0], [1.0], [0.0]]])
    rgb = jnp.array([0.0, 0.3, 0.9, 0.0])[None, :, None] * jnp.ones(3)
    np.testing.assert_allclose(regularisers.total_variation(r._replace(rgb=rgb)), 0.45, rtol=1e-5)
    np.testing.assert_allclose(
        regularisers.total_variation(
            rendering(r.weights.swapaxes(0, 1))._replace(rgb=rgb.swapaxes(0, 1))
        ),
        0.45,
        rtol=1e-5,
    )
    assert regularisers.total_variation(rendering(jnp.zeros((2, 2, 1)))) == 0


def depth_picture(camera, z, size=32):
    """An opaque surface z [size, size] along the optical axis."""
    _, directions = rays(camera, size, size)
    backward = np.asarray(camera.camera_to_world[:3, 2])
    depth = -z / (directions @ backward)
    r = rendering(np.ones((size, size, 1)), depth[..., None], directions=directions)
    return r._replace(depth=depth)


def test_normal_smoothness_of_a_plane_a_roof_and_an_edge():
    """A slanted plane is smooth; a ridge between slopes -1 and 1 changes by 2 in one pixel."""
    camera = orbit(0.4, 0.2, 2.7, 0.7)
    x = np.tan(0.35) * ((2 * np.arange(32) + 1) / 32 - 1)
    plane = 2 / (1 - 0.4 * x[None, :] + 0.3 * x[:, None])  # z = 2 + 0.4 X - 0.3 Y
    flat = regularisers.normal_smoothness(depth_picture(camera, plane), camera)
    np.testing.assert_allclose(flat, 0, atol=3e-4)
    roof = 2 / (1 - np.abs(x))[None, :] * np.ones((32, 1))  # z = 2 + |X|
    # 2 of the 30 triples of a row meet the ridge, at z = 2: each sees half of the change of slope.
    ridge = regularisers.normal_smoothness(depth_picture(camera, roof), camera)
    np.testing.assert_allclose(ridge, 2 / 60 * 0.5, rtol=0.05)
    edge = np.where(x > 0, 2.0, 3.0)[None, :] * np.ones((32, 1))
    assert regularisers.normal_smoothness(depth_picture(camera, edge), camera) < 2 / 60


@pytest.mark.parametrize(("azimuth", "elevation"), [(0.0, 0.0), (2.0, 0.6)])
def test_convexity_tells_a_bulge_from_a_bowl(azimuth, elevation):
    """Normals of a sphere seen by the camera, and the same flipped sideways."""
    camera = orbit(azimuth, elevation, 2.7, 0.7)
    x, y = np.meshgrid(np.linspace(-0.6, 0.6, 32), np.linspace(0.6, -0.6, 32))
    bulge = np.stack([x, y, np.sqrt(1 - x**2 - y**2)], -1)
    bowl = bulge * [-1, -1, 1]
    rotation = np.asarray(camera.camera_to_world[:3, :3])
    losses = [
        float(
            regularisers.convexity(rendering(np.ones((32, 32, 1)), normal=n @ rotation.T), camera)
        )
        for n in (bulge, bowl)
    ]
    assert losses[0] < -0.2
    np.testing.assert_allclose(losses[1], -losses[0], rtol=1e-4)


@pytest.mark.parametrize("name", ["orientation", "convexity"])
def test_missing_normals_are_named(name):
    arguments = (orbit(0.0, 0.0, 2.7, 0.7),) if name == "convexity" else ()
    with pytest.raises(ValueError, match=f"{name} needs normals"):
        getattr(regularisers, name)(rendering([[[0.5]]]), *arguments)


@pytest.mark.parametrize("name", ["sparsity", "opaque", "z_variance", "distortion", "entropy"])
def test_gradients_are_finite_on_empty_and_full_rays(name):
    weights = jnp.array([[[0.0, 0, 0], [1.0, 0, 0], [0.3, 0.3, 0.1]]])

    def loss(weights):
        return getattr(regularisers, name)(rendering(weights))

    assert np.all(np.isfinite(jax.grad(loss)(weights)))


def test_gradients_of_smoothness_are_finite_where_there_is_nothing():
    camera = orbit(0.0, 0.0, 2.7, 0.7)
    weights = jnp.ones((6, 6, 2)).at[:3, :3].set(0.0) / 2

    def loss(weights):
        return regularisers.normal_smoothness(
            rendering(weights, directions=rays(camera, 6, 6)[1]), camera
        )

    assert np.all(np.isfinite(jax.grad(loss)(weights)))
