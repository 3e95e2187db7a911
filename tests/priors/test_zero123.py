"""zero123.py: poses and projection by hand. The authors' values: tests/parity."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.priors.zero123 import pose_vector, project


def test_pose_vector():
    np.testing.assert_allclose(
        pose_vector(0.2, math.pi / 6, -0.1), [0.2, 0.5, 3**0.5 / 2, -0.1], rtol=1e-6
    )
    np.testing.assert_array_equal(pose_vector(0.0, 0.0, 0.0), [0, 0, 1, 0])
    stacked = pose_vector(jnp.zeros(3), jnp.array([0.0, 1.0, 2.0]), jnp.ones(3))
    assert stacked.shape == (3, 4)
    np.testing.assert_array_equal(stacked[1], pose_vector(0.0, 1.0, 1.0))


def test_project_is_linear_in_embedding_then_pose():
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(9, 5)).astype("f"), rng.normal(size=5).astype("f")
    embedding, pose = rng.normal(size=(2, 3, 5)).astype("f"), rng.normal(size=(2, 4)).astype("f")
    expected = embedding @ kernel[:5] + (pose @ kernel[5:])[:, None] + bias
    layer = {"kernel": kernel, "bias": bias}
    np.testing.assert_allclose(project(layer, embedding, pose), expected, rtol=1e-5, atol=1e-5)
    mapped = jax.vmap(project, (None, 0, 0))(layer, embedding, pose)
    np.testing.assert_allclose(mapped, expected, rtol=1e-5, atol=1e-5)
