"""How far objects agree with the picture that they were made from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.engine.picture_scores import SCORED_SIZE, agreement, shown_on_grey
from dsd_jax.export.scenes import SavedScene
from dsd_jax.recipe import reference
from dsd_jax.recipe.recipe import changed
from dsd_jax.recipe.viewpoints import Reference


@pytest.fixture(scope="module")
def white(recipe):
    return changed(recipe, background="white", final_samples=64, colour_std=1.0)


def test_a_rendering_of_an_object_agrees_with_it_and_a_shifted_one_less(white):
    scene, elevation = white.scene, jnp.deg2rad(20.0)
    saved = SavedScene(scene, scene.init(jax.random.key(0)))
    size = {"height": SCORED_SIZE, "width": SCORED_SIZE, "samples_per_ray": 64}
    camera = reference.camera_of(elevation, white.camera)
    seen = jax.jit(lambda camera: saved.render(camera, **size))(camera)
    found = agreement(saved, Reference(elevation, seen.rgb, seen.opacity), white)
    assert found["psnr_db"] > 30 and found["mask_iou"] > 0.97
    moved = Reference(elevation, *(jnp.roll(part, 30, 1) for part in (seen.rgb, seen.opacity)))
    off = agreement(saved, moved, white)
    assert off["psnr_db"] < 20 and off["mask_iou"] < 0.7


def test_a_picture_is_shown_on_the_grey_of_results(white, recipe):
    rgb, mask = np.ones((2, 2, 3)), np.array([[1.0, 0.5], [0.0, 0.0]])
    found = shown_on_grey(rgb, mask, white)
    np.testing.assert_array_equal(found[..., 0], [[255, 230], [204, 204]])
    np.testing.assert_array_equal(shown_on_grey(rgb, mask, recipe), 255)
