"""The network that a method trains beside the object, through the steps of a run."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.distillation import METHODS, vsd
from dsd_jax.engine import loop
from dsd_jax.engine.plan import Task, initial_states, load_states, make_blocks, optimise_chunk
from dsd_jax.priors import load_prior
from dsd_jax.recipe import method_step
from dsd_jax.recipe.state import init_state
from dsd_jax.recipe.step import Recipe, Shared, make_step
from dsd_jax.recipe.viewpoints import Text, embed_prompt, sample_viewpoints

KEY = jax.random.key(5)


def with_method(task: Task, name: str, **changes) -> Task:
    settings = dataclasses.replace(task.settings, lora_rate=0.02, **changes)
    return task._replace(method=METHODS[name], settings=settings)


@pytest.fixture(scope="module")
def vsd_task(task) -> Task:
    return with_method(task, "vsd", steps=4)


@pytest.fixture(scope="module")
def tiny(task, tiny_prior_folder) -> Task:
    """A network that knows cameras and denoises two views together."""
    prior = load_prior(str(tiny_prior_folder), jnp.float32)
    text = embed_prompt(prior, "a red house", task.settings)
    return with_method(task._replace(prior=prior, text=text), "vsd", views=2, lora_rank=2)


def recipe_and_state(task: Task, seed=0):
    recipe = Recipe(task.scene, task.prior, task.method, task.settings)
    state = init_state(
        seed, task.prior.latent_shape, task.scene, task.settings, method_step.initial(task)
    )
    return recipe, state


def step_once(task: Task, seed=0):
    """The state before and after a step, and its metrics."""
    recipe, state = recipe_and_state(task, seed)
    shared = Shared(task.prior.params, task.text)
    return state, *jax.jit(make_step(recipe))(state, shared)


def test_most_methods_train_nothing(task):
    assert initial_states(task, [0]).method is None
    recipe, state = recipe_and_state(task)
    shared = Shared(None, task.text)
    assert method_step.train(recipe, shared, KEY, None, 500, state, None, None) == (None, {})


@pytest.mark.parametrize("name", ["vsd", "asd"])
def test_a_step_of_views_denoised_one_by_one_trains_once(task, name):
    before, after, metrics = step_once(with_method(task, name, views=2))
    assert int(after.method.opt_state[0].count) == 1
    assert np.abs(after.method.weights - before.method.weights).max() > 0
    assert np.isfinite(metrics["lora_loss"]) and np.isfinite(metrics["grad_norm"])


def test_a_step_of_views_denoised_together_trains_once(tiny):
    before, after, metrics = step_once(tiny)
    assert int(after.method.opt_state[0].count) == 1
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    moved = [leaf for leaf in jax.tree.leaves(after.method.weights["mid_block"]) if leaf.any()]
    # B starts at 0 and A's gradient is a multiple of B: the first step moves B alone.
    assert len(moved) == len(jax.tree.leaves(after.method.weights["mid_block"]))
    assert np.isfinite(metrics["lora_loss"])


def test_all_views_count_alike(task):
    """One step on two views is a step on the mean of their losses, each with its own view."""
    task = with_method(task, "vsd", views=2, view_prompts="words")
    red, blue = jnp.array([[0.0, -1e9]]), jnp.array([[-1e9, 0.0]])
    text = Text(red, jnp.stack([red, blue, red, blue]), red)
    task = task._replace(text=text)
    recipe, state = recipe_and_state(task)
    shared, schedule = Shared(None, text), task.prior.schedule
    viewpoint, camera = sample_viewpoints(KEY, task.settings)
    # From the front and from a side: what the prompts say differs.
    viewpoint = viewpoint._replace(azimuth=jnp.array([0.0, jnp.pi / 2]))
    x = jax.random.normal(KEY, (2, *task.prior.latent_shape))
    found, aux = method_step.train(recipe, shared, KEY, x, 500, state, viewpoint, camera)

    def learned_at(weights):
        ats = [task.prior.denoiser_at(weights, words, red)(1.0) for words in (red, blue)]
        return lambda w: lambda z, t: jnp.stack([at(z[i], t) for i, at in enumerate(ats)])

    expected, logged = vsd.update(
        KEY, state.method, learned_at, schedule, x, 500, lora_rate=task.settings.lora_rate
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-5)
    np.testing.assert_allclose(aux["lora_loss"], logged["lora_loss"], rtol=1e-5)


def test_learning_the_renderings_lowers_the_loss(tiny):
    """The same view, again and again: what the adapter learns is to denoise it."""
    task = tiny._replace(settings=dataclasses.replace(tiny.settings, views=1, lora_rate=0.05))
    recipe, state = recipe_and_state(task)
    shared = Shared(task.prior.params, task.text)
    viewpoint, camera = sample_viewpoints(KEY, task.settings)
    x = jnp.full((1, *task.prior.latent_shape), 0.5)
    keys = jax.random.split(KEY, 8)

    @jax.jit
    def train(state, key):
        method, aux = method_step.train(recipe, shared, key, x, 500, state, viewpoint, camera)
        return dataclasses.replace(state, method=method), aux["lora_loss"]

    first = np.mean([train(state, key)[1] for key in keys])
    for i in range(150):
        state, _ = train(state, jax.random.fold_in(KEY, i))
    last = np.mean([train(state, key)[1] for key in keys])
    assert last < 0.97 * first  # of a random network's, of which attention is a small part


def test_seeds_train_their_own_networks(vsd_task):
    """Together or alone, and from the seed's own key."""
    states = initial_states(vsd_task, [1, 2])
    recipe, _ = recipe_and_state(vsd_task)
    shared = Shared(None, vsd_task.text)
    together, _ = jax.jit(jax.vmap(make_step(recipe), (0, None)))(states, shared)
    for i, seed in enumerate((1, 2)):
        _, alone, _ = step_once(vsd_task, seed)
        one = jax.tree.map(lambda leaf, i=i: leaf[i], together.method)
        chex.assert_trees_all_close(one, alone.method, rtol=1e-4, atol=1e-6)
    assert np.abs(together.method.weights[0] - together.method.weights[1]).max() > 0


def test_a_seed_has_its_own_random_start(tiny):
    states = jax.jit(lambda: initial_states(tiny, [1, 2]))()
    first = states.method.weights["mid_block"]["attentions_0"]["transformer_blocks_0"]["attn1"]
    assert first["to_q"]["a"].shape == (2, 16, 2) and not first["to_q"]["b"].any()
    assert np.abs(first["to_q"]["a"][0] - first["to_q"]["a"][1]).max() > 0


def test_resumed_run_is_the_unbroken_one(vsd_task, tmp_path):
    """The network and its Adam come back from the checkpoint, bit for bit."""
    mesh = loop.seed_mesh(1)
    blocks = make_blocks(vsd_task, mesh)
    done = {"steps": 0}

    def watch(progress):
        done["steps"] = progress.done

    def run(folder, stop):
        saved = load_states(vsd_task, folder, [3])
        return optimise_chunk(
            vsd_task, [3], blocks, mesh, folder, watch, lambda: done["steps"] >= stop, saved=saved
        )

    unbroken = run(tmp_path / "a", 99)
    done["steps"] = 0
    stopped = run(tmp_path / "b", 1)
    assert 1 <= int(stopped.step[0]) < 4
    resumed = run(tmp_path / "b", 99)
    assert int(resumed.method.opt_state[0].count[0]) == 4
    chex.assert_trees_all_equal(jax.device_get(resumed), jax.device_get(unbroken))
