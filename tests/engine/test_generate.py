"""Whole runs: companions, resumption, and what is refused before the first step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_colours import FlatColours, Machine

from dsd_jax.distillation import METHODS
from dsd_jax.engine import loop
from dsd_jax.engine.generate import (
    checked_seeds,
    generate,
    generate_each,
    initial_states,
    load_states,
    usual_recipe,
)
from dsd_jax.engine.task import make_task
from dsd_jax.priors import load_prior
from dsd_jax.recipe import presets
from dsd_jax.recipe.input_picture import InputPicture
from dsd_jax.recipe.recipe import changed, with_method

# Companions change the shapes that XLA compiles for, hence the order of some sums, and Adam passes
# the sign of the smallest gradients on. Measured 2e-6 after 20 steps.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def machine(task):
    return Machine(task)


@pytest.fixture(scope="module")
def unbroken(machine, tmp_path_factory):
    """Seed 3 alone, all steps."""
    return machine.run([3], tmp_path_factory.mktemp("unbroken"))


def test_a_seed_alone_is_the_seed_among_others(machine, unbroken, tmp_path):
    among = machine.run([8, 3, 5], tmp_path)
    middle = jax.tree.map(lambda leaf: leaf[1:2], among)
    chex.assert_trees_all_close(middle.params, unbroken.params, atol=TOLERANCE, rtol=TOLERANCE)
    np.testing.assert_array_equal(middle.seed_noise, unbroken.seed_noise)
    first = jax.tree.leaves(among.params["field"])[0]
    assert not np.allclose(first[0], first[1], atol=1e-3)


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(machine, unbroken, tmp_path):
    """A checkpoint is without the kept ODE, which is built anew."""
    assert machine.task.recipe.keeps_ode
    stopped = machine.run([3], tmp_path, stop=9)
    assert 9 <= int(stopped.step[0]) < machine.task.recipe.steps
    assert load_states(machine.task, tmp_path, [3])[3].state.ode is None
    resumed = machine.run([3], tmp_path)
    assert int(resumed.step[0]) == machine.task.recipe.steps
    chex.assert_trees_all_equal(resumed, unbroken)
    again = machine.run([3], tmp_path)  # nothing is left to do
    chex.assert_trees_all_equal(again, unbroken)


class Adapted(FlatColours):
    """Its adapter shifts both colours."""

    def init_adapter(self, key, params, rank):
        return jax.random.normal(key, (3,)) / 100

    def adapt(self, params, adapter):
        return params + adapter


def test_a_network_that_is_trained_is_the_seed_s_own_and_is_resumed(recipe, tmp_path):
    """Its weights and its Adam come back from the checkpoint, bit for bit."""
    recipe = with_method(changed(recipe, steps=4), "vsd", lora_rate=0.02)
    machine = Machine(make_task(Adapted(jnp.zeros(3)), "a red thing", recipe))
    unbroken = machine.run([1, 2], tmp_path / "whole")
    stopped = machine.run([1, 2], tmp_path / "cut", stop=1)
    assert 1 <= int(stopped.step[0]) < 4
    resumed = machine.run([1, 2], tmp_path / "cut")
    assert resumed.method.opt_state[0].count.tolist() == [4, 4]
    chex.assert_trees_all_equal(resumed, unbroken)
    alone = machine.run([2], tmp_path / "alone")
    second = jax.tree.map(lambda leaf: leaf[1:], unbroken.method)
    chex.assert_trees_all_close(second, alone.method, rtol=1e-4, atol=1e-6)
    assert np.abs(unbroken.method.weights[0] - unbroken.method.weights[1]).max() > 1e-3


def test_states_start_with_what_the_method_trains(task):
    assert initial_states(task, [0]).method is None


# ---- from Python -------------------------------------------------------------------------------


def test_a_prior_of_one_s_own_says_what_objects_become(prior, recipe, capfd):
    """It knows flat red pictures only: the object turns red, from every side."""
    objects = generate(prior, "a red thing", range(3, 5), changed(recipe, final_samples=8))
    assert objects.seeds == [3, 4] and objects.steps == {3: 40, 4: 40} and not objects.interrupted
    views = objects.views()
    assert views.shape[:2] == (2, 8)
    side = views.shape[2] // 2
    centre = views[:, :, side - 8 : side + 8, side - 8 : side + 8].astype(float).mean((2, 3))
    assert (centre @ [1, -0.5, -0.5] > 100).all()
    assert "optimising: 40 of 40, loss " in capfd.readouterr().err


def test_several_prompts_share_what_is_compiled(prior, recipe, compilations):
    seen = []
    red, blue = generate_each(
        prior, ["red", "blue"], [3], changed(recipe, steps=5, samples=7),
        on_progress=lambda chunk, progress: seen.append((chunk, progress.done)),
    )  # fmt: skip
    assert compilations.count("jit(_step)") == 1
    assert (red.prompt, blue.prompt) == ("red", "blue")
    assert [done for _, done in seen].count(5) == 2 and seen[0] == ([3], 1)
    leaves = zip(jax.tree.leaves(red.chunks), jax.tree.leaves(blue.chunks), strict=True)
    assert any(not np.allclose(a, b) for a, b in leaves)


def test_python_goes_on_from_checkpoints_too(prior, recipe, tmp_path):
    recipe, done = changed(recipe, steps=3), []
    for _ in range(2):
        objects = generate(
            prior, "red", [3], recipe, checkpoints=tmp_path,
            on_progress=lambda chunk, progress: done.append(progress.done),
        )  # fmt: skip
        assert objects.steps == {3: 3} and np.isfinite(objects.latest[3]["loss"])
    assert done == [1, 2, 3]


@pytest.mark.parametrize(
    ("seeds", "said"),
    [([], "names no seed"), ([1, 2, 1], "names a seed twice"), ([-1], "from 0 to 4294967295"),
     ([2**32], "from 0 to 4294967295")],
)  # fmt: skip
def test_seeds_that_are_none_are_refused(seeds, said):
    with pytest.raises(ValueError, match=said):
        checked_seeds(seeds)


def test_what_cannot_work_is_refused_before_anything_is_compiled(prior, recipe, compilations):
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate(prior, " ", [0], recipe)
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate_each(prior, ["red", ""], [0], recipe)
    with pytest.raises(ValueError, match="--devices must be from 1 to"):
        generate(prior, "red", [0], recipe, devices=99)
    with pytest.raises(ValueError, match=r"^this prior has no adapter, .*\(vsd, asd, sim\)$"):
        generate(prior, "red", [0], with_method(recipe, "vsd"))
    message = "^give one prompt, .*, and not a list; generate_each takes several prompts$"
    with pytest.raises(ValueError, match=message):
        generate(prior, ["red"], [0], recipe)  # pyright: ignore[reportArgumentType]
    assert "jit(_step)" not in compilations


def test_the_recipe_that_is_taken_where_none_is_given(zero123_folder):
    assert jax.default_backend() == "cpu"
    assert usual_recipe() == presets.quick
    picture = InputPicture(np.ones((4, 4, 3)), np.ones((4, 4)), None, None, [])
    prior = load_prior(zero123_folder)
    assert usual_recipe(prior, picture) == presets.of_picture(presets.quick, 49.1)
    assert usual_recipe(object(), picture) == presets.of_picture(presets.quick)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_objects(recipe, name):
    """A few steps, the programs of a run, and what is logged of it."""
    recipe = with_method(changed(recipe, steps=3, views=2), name)
    objects = generate(Adapted(jnp.zeros(3)), "red", [0, 1], recipe)
    assert objects.steps == {0: 3, 1: 3}
    chex.assert_tree_all_finite(objects.chunks)
    assert {"loss", "penalty", "opacity", "grad_norm"} <= objects.latest[0].keys()
    assert loop.MAX_BLOCK > 3
