"""Pictures of several seeds at once."""

import jax.numpy as jnp
import numpy as np

from dsd_jax.engine import seed_views
from dsd_jax.engine.device_mesh import seed_mesh
from dsd_jax.engine.generate import initial_states
from dsd_jax.engine.seed_views import final_stage, seed_renderer, shoot, stage_of
from dsd_jax.export.pictures import to_uint8
from dsd_jax.recipe.recipe import changed


def test_opacity_is_a_fourth_channel_of_the_same_pictures(task):
    """Where it is nothing there is the grey, and the ball that a seed starts with is solid."""
    scene, states = task.recipe.scene, initial_states(task, [3, 4])
    plain, both = (seed_renderer(scene, 8, 8, seed_mesh(1), it) for it in (False, True))
    assert plain is seed_renderer(scene, 8, 8, seed_mesh(1), False)  # so that it is compiled once
    seen = []
    rgb, rgba = (
        shoot(kind, states, [0, 120], 20, task.recipe, lambda: seen.append(1))
        for kind in (plain, both)
    )
    assert rgb.shape == (2, 2, 8, 8, 3) and rgba.shape == (2, 2, 8, 8, 4) and len(seen) == 4
    np.testing.assert_array_equal(rgba[..., :3], rgb)
    np.testing.assert_array_equal(rgb[rgba[..., 3] == 0], 204)
    assert rgba[..., 0, 0, 3].max() == 0 and rgba[..., 4, 4, 3].min() > 127


def test_pictures_become_bytes_on_the_device_as_on_the_host():
    image = np.array([-1.0, 0.0, 0.001, 0.0019, 0.5, 0.9999, 1.0, 7.0, np.nan, np.inf, -np.inf])
    image = np.concatenate([image, np.arange(512) / 510]).astype(np.float32)
    np.testing.assert_array_equal(seed_views._to_uint8(jnp.asarray(image)), to_uint8(image))


def test_results_show_the_stage_of_the_steps_done_without_haze(task):
    """Four of six levels after half of the time in which they open; the floor holds in any case."""
    recipe = changed(task.recipe, levels=6, start_levels=2, levels_until=0.5, density_floor=9.0)
    states = initial_states(task, [3])
    assert stage_of(states, recipe) == (2.0, 1.0)
    assert stage_of(states.replace(step=states.step + 10), recipe) == (4.0, 1.0)
    assert final_stage(recipe) == (6.0, 1.0)
