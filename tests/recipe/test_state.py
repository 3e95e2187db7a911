"""The state of a seed."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.engine.generate import initial_states
from dsd_jax.recipe.presets import quick
from dsd_jax.recipe.recipe import Recipe, changed
from dsd_jax.recipe.state import (
    init_state,
    kept_finite,
    noise_of,
    optimiser,
    seed_noise,
    step_key,
)

SHAPE = (16, 16, 4)


def test_noise_is_a_function_of_the_seed_alone():
    one = noise_of(3, SHAPE, quick)
    np.testing.assert_array_equal(one, noise_of(3, SHAPE, changed(quick, steps=7, t_max=0.5)))
    assert not np.allclose(one, noise_of(4, SHAPE, quick))
    assert abs(float(one.mean())) < 0.1
    assert abs(float(one.std()) - 1) < 0.1


def test_views_share_the_noise_of_a_single_view_or_have_one_each():
    single, shared = seed_noise(3, SHAPE), noise_of(3, SHAPE, Recipe())
    assert shared.shape == (4, *SHAPE)
    np.testing.assert_array_equal(shared, np.broadcast_to(single, shared.shape))
    own = noise_of(3, SHAPE, changed(Recipe(), view_noise="own"))
    assert len({float(noise.sum()) for noise in own}) == 4
    attached = noise_of(3, SHAPE, changed(Recipe(), view_noise="attached"))
    np.testing.assert_array_equal(attached, shared)  # where there is no matter
    one = noise_of(3, SHAPE, changed(Recipe(), views=1, view_noise="own"))
    np.testing.assert_array_equal(one, single)


def test_steps_and_the_noise_draw_from_different_keys():
    keys = [jax.random.key_data(step_key(3, step)).tolist() for step in range(4)]
    assert len({tuple(key) for key in keys}) == 4
    assert keys[2] == jax.random.key_data(step_key(jnp.uint32(3), jnp.int32(2))).tolist()


def test_state_of_a_seed_does_not_depend_on_its_companions(task):
    among = initial_states(task, [5, 2, 9])
    alone = initial_states(task, [2])
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[1:2], among), alone)
    assert among.seed.tolist() == [5, 2, 9]


def test_each_group_of_parameters_has_its_learning_rate(task):
    rates = {"grid_rate": 0.3, "mlp_rate": 0.2, "background_rate": 0.1}
    recipe = changed(task.recipe, background="colour", **rates)
    state = init_state(0, task.prior.latent_shape, recipe)
    ones = jax.tree.map(jnp.ones_like, state.params)
    updates, _ = optimiser(recipe).update(ones, state.opt_state, state.params)
    assert set(_values(updates["field"]["HashGrid_0"])) == {-0.3}
    assert set(_values(updates["field"]["Dense_0"])) == {-0.2}
    assert set(_values(updates["background"])) == {-0.1}


@pytest.mark.parametrize(("final_rate", "last"), [(1.0, -0.01), (0.1, -0.001)])
def test_learning_rates_fall_to_the_final_one(final_rate, last):
    transformation = optimiser(changed(Recipe(), steps=10, final_rate=final_rate))
    ones = {"field": {"HashGrid_0": jnp.ones(1)}, "background": {}}
    state = transformation.init(ones)
    for _ in range(11):
        updates, state = transformation.update(ones, state)
    assert float(updates["field"]["HashGrid_0"][0]) == pytest.approx(last, rel=1e-4)


def _values(tree):
    return [round(float(x), 5) for leaf in jax.tree.leaves(tree) for x in np.unique(leaf)]


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_a_step_whose_numbers_are_not_finite_is_not_made_nor_any_after_it(task, recipe, name):
    """Whatever it would do to the parameters; its loss says so from then on."""

    def step(state, shared):
        metrics = {"loss": jnp.ones(()), "grad_norm": jnp.ones(())}
        params = jax.tree.map(lambda leaf: leaf + shared, state.params)
        metrics[name] = shared
        return dataclasses.replace(state, step=state.step + 1, params=params), metrics

    state, guarded = init_state(0, task.prior.latent_shape, recipe), jax.jit(kept_finite(step))
    moved, metrics = guarded(state, jnp.ones(()))
    assert metrics["loss"] == 1 and not moved.frozen
    for told in (jnp.inf, 1.0):
        after, metrics = guarded(moved, told)
        chex.assert_trees_all_equal(after.params, moved.params)
        assert np.isnan(metrics["loss"]) and after.frozen and after.step == moved.step + 1
        moved = after
