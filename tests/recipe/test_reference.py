"""The terms of the reference view, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.recipe import reference
from dsd_jax.recipe.fitting_parts import ReferenceSettings
from dsd_jax.recipe.parts import CameraSettings
from dsd_jax.recipe.viewpoints import Reference
from dsd_jax.rendering.cameras import orbit, rays
from dsd_jax.rendering.volume import Rendering

LEVEL = jnp.zeros(())


def rendering(**parts):
    """Of 2 x 2 pixels; what a test does not give is empty."""
    empty = dict.fromkeys(Rendering._fields)
    return Rendering(**(empty | {"opacity": jnp.zeros((2, 2))} | parts))


def test_colour_and_mask_are_mean_squares():
    """Half of the pixels are off by 0.5 in one channel of three, and by 1 in opacity."""
    picture = Reference(LEVEL, jnp.ones((2, 2, 3)), jnp.zeros((2, 2)))
    rgb = jnp.ones((2, 2, 3)).at[0, :, 0].set(0.5)
    seen = rendering(rgb=rgb, opacity=jnp.zeros((2, 2)).at[0].set(1.0))
    camera = reference.camera_of(LEVEL, CameraSettings())
    total, terms = reference.distance(seen, picture, camera, ReferenceSettings(12.0, 2.0))
    np.testing.assert_allclose(terms["reference_colour"], 0.25 / 6)
    np.testing.assert_allclose(terms["reference_mask"], 0.5)
    np.testing.assert_allclose(total, 12 * 0.25 / 6 + 2 * 0.5)
    alone, left = reference.distance(seen, picture, camera, ReferenceSettings(12.0, 0.0))
    assert left.keys() == {"reference_colour"}
    np.testing.assert_allclose(alone, 0.5)


def test_depth_is_compared_but_for_scale_and_offset():
    ours, mask = jnp.array([[1.0, 2.0], [3.0, 9.0]]), jnp.array([[1.0, 1.0], [1.0, 0.0]])
    assert reference.uncorrelated(ours, 0.1 * ours - 3, mask) == pytest.approx(0, abs=1e-6)
    assert reference.uncorrelated(ours, -ours, mask) == pytest.approx(2, abs=1e-6)
    # Of (1, 2, 3) and (1, 3, 2): deviations (-1, 0, 1) and (-1, 1, 0), correlation 1 / 2.
    assert reference.uncorrelated(ours, jnp.array([[1.0, 3.0], [2.0, 0.0]]), mask) == pytest.approx(
        0.5, abs=1e-6
    )
    flat = jax.grad(reference.uncorrelated)(jnp.ones((2, 2)), ours, mask)
    assert jnp.isfinite(flat).all()


def test_normals_are_compared_by_angle_in_the_camera_s_frame():
    """60 degrees off in one pixel of two; the third has no normal, the fourth is outside."""
    x, up = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 0.0])
    tilted = 0.5 * x + 0.75**0.5 * up
    ours = jnp.stack([jnp.stack([x, tilted]), jnp.stack([x, x])])
    theirs = jnp.stack([jnp.stack([2 * x, x]), jnp.stack([0 * x, up])])
    mask = jnp.array([[1.0, 1.0], [1.0, 0.0]])
    assert reference.turned(ours, theirs, mask) == pytest.approx(0.25)
    side = orbit(jnp.pi / 2, 0.0, 2.7, 0.7)  # stands on +x: a normal along +x looks at it
    seen = rendering(normal=jnp.broadcast_to(x, (2, 2, 3)))
    np.testing.assert_allclose(reference.in_camera(seen, side)[0, 0], [0, 0, 1], atol=1e-6)


def test_depth_along_the_axis_is_that_of_a_plane():
    camera = orbit(0.3, 0.2, 2.7, 1.2)
    _, directions = rays(camera, 3, 3)
    forward = -camera.camera_to_world[:3, 2]
    plane = 2 / jnp.einsum("hwi,i->hw", directions, forward)
    seen = rendering(depth=plane, directions=directions)
    np.testing.assert_allclose(reference.along_axis(seen, camera), 2, rtol=1e-5)


def test_a_part_of_the_picture_lies_where_its_rays_go():
    """Each pixel holds the first two coordinates of its own ray: so do those of the part's rays."""
    camera = orbit(0.0, 0.3, 2.7, 0.7)
    _, fine = rays(camera, 6, 6)
    picture = Reference(LEVEL, rgb=fine, mask=fine[..., 0], depth=fine[..., 1])
    seen = set()
    for key in range(12):
        part, offset = reference.part_of(picture, 2, jax.random.key(key))
        _, ours = rays(camera, 2, 2, offset)
        np.testing.assert_allclose(part.rgb, ours, atol=1e-6)
        np.testing.assert_allclose(part.mask, ours[..., 0], atol=1e-6)
        np.testing.assert_allclose(part.depth, ours[..., 1], atol=1e-6)
        assert part.normal is None
        seen.add(tuple(np.round(3 * (np.asarray(offset) + 0.5) - 0.5).astype(int)))
    assert {row for row, _ in seen} == {column for _, column in seen} == {0, 1, 2}


def test_a_picture_that_does_not_divide_is_resized_and_a_small_one_taken_whole():
    flat = Reference(LEVEL, rgb=jnp.full((7, 7, 3), 0.25), mask=jnp.ones((7, 7)))
    part, _ = reference.part_of(flat, 3, jax.random.key(0))
    assert part.rgb.shape == (3, 3, 3)
    np.testing.assert_allclose(part.rgb, 0.25, atol=1e-6)
    small, offset = reference.part_of(flat, 9, jax.random.key(0))
    assert small.mask.shape == (9, 9)
    np.testing.assert_array_equal(offset, 0)


def test_a_picture_is_averaged_down():
    fine = jnp.kron(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.ones((4, 4)))
    assert reference.resized(fine, (2, 2)).mean() == pytest.approx(0.5)
    assert reference.resized(jnp.ones((8, 8, 3)), (2, 2)).shape == (2, 2, 3)
