"""Finished objects."""

import jax
import numpy as np
import pytest

from dsd_jax.engine.generate import about, initial_states
from dsd_jax.engine.objects import Objects
from dsd_jax.engine.plan import make_plan
from dsd_jax.engine.task import make_task
from dsd_jax.recipe.recipe import changed


@pytest.fixture(scope="module")
def objects(prior, recipe):
    """Seeds 9, 3 and 4 in two chunks, of which the first has the later two, at their start."""
    recipe = changed(
        recipe, final_samples=8, turntable_frames=3, turntable_resolution=8, colour_std=1.0
    )
    task = make_task(prior, "red", recipe)
    chunks = [([3, 4], initial_states(task, [3, 4])), ([9], initial_states(task, [9]))]
    host = [(seeds, jax.device_get(states)) for seeds, states in chunks]
    return Objects(about(task), make_plan(task, [9, 3, 4]), host, {})


def test_they_are_a_sequence_in_the_order_of_the_seeds(objects):
    assert len(objects) == 3 and objects.seeds == [9, 3, 4]
    assert [one.seed for one in objects] == [9, 3, 4] == [one.seed for one in objects[:]]
    assert objects[-1].seed == 4 and [one.seed for one in objects[1:]] == [3, 4]
    assert repr(objects) == "Objects('red', seeds=[9, 3, 4])" and repr(objects[0]) == (
        "Object(seed=9)"
    )
    with pytest.raises(IndexError):
        objects[3]
    second = objects.chunks[0][1].params
    mine = jax.tree.map(lambda leaf: leaf[0], second)
    jax.tree.map(np.testing.assert_array_equal, objects[1].scene.params, mine)


def test_pictures_are_in_that_order_too(objects):
    turn = objects.turntable()
    assert turn.shape == (3, 3, 8, 8, 3) and turn.dtype == np.uint8
    assert len({frames.tobytes() for frames in turn}) == 3
    one = Objects(objects.about, objects.device_mesh, objects.chunks[1:], {})
    assert one.seeds == [9]
    np.testing.assert_array_equal(one.turntable()[0], turn[0])


def test_what_they_depend_on(objects):
    config = objects.config()
    assert config["prompt"] == "red" and config["seeds"] == [9, 3, 4]
    assert config["prior"] == "FlatColours" and config["precision"] == "float32"
    assert config["method"] == "dsd" and config["recipe"]["steps"] == 40
    pictured = objects.about._replace(pictured=True)
    assert Objects(pictured, objects.device_mesh, objects.chunks, {}).config()["image"] == "red"
