"""What a method is given, and the network that it trains beside the object."""

import dataclasses
from dataclasses import dataclass
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_colours import FlatColours

from dsd_jax.distillation import DSD, METHODS, NOTHING, VSD, Method, result
from dsd_jax.engine.task import make_task
from dsd_jax.priors import completed, load_prior
from dsd_jax.recipe import method_step
from dsd_jax.recipe.recipe import Recipe, changed, with_method
from dsd_jax.recipe.state import method_key
from dsd_jax.recipe.viewpoints import Reference, Shared, sample_viewpoints, viewpoint_at

KEY = jax.random.key(5)
SHAPE = (4, 4, 3)


class Adapted(FlatColours):
    """Its adapter shifts both colours."""

    def init_adapter(self, key, params, rank):
        return jnp.zeros(3)

    def adapt(self, params, adapter):
        return params + adapter


@pytest.fixture(scope="module")
def adapted():
    return completed(Adapted(jnp.zeros(3)))


def seen(prior, recipe, **changes):
    """The moment of step 10 of 40, and t = 500."""
    method = method_step.initial(prior, recipe)(method_key(0))
    viewpoints, _ = sample_viewpoints(KEY, recipe.camera)
    return method_step.Seen(500, 10, method, None, viewpoints)._replace(**changes)


@dataclass(frozen=True)
class Asks(Method):
    """Logs what it was given."""

    def gradient(self, key, denoiser_at, schedule, x, seed_noise, t, given=NOTHING):
        t_max, t_min = given.t_range
        told = {"progress": given.progress, "t_max": t_max, "t_min": t_min, "t": t}
        return result(x, x, least_eta=given.least_eta, **told)


def test_what_a_run_tells_a_method_of_one_s_own(adapted, recipe):
    recipe = dataclasses.replace(changed(recipe, visible_eta=0.5), method=Asks())
    x, noise, front = jnp.ones((1, *SHAPE)), jnp.ones(SHAPE), jnp.zeros(1)
    views, _ = viewpoint_at(front, front, recipe.camera)
    moment = seen(adapted, recipe, viewpoints=views)
    picture = Reference(jnp.zeros(()), jnp.ones((4, 4, 3)), jnp.ones((4, 4)))
    found = []
    for reference in (None, picture):
        shared = Shared(adapted.params, None, reference=reference)
        grad, logs = method_step.gradient(adapted, recipe, shared, KEY, x, noise, moment)
        np.testing.assert_array_equal(grad, x)
        found.append({name: round(float(value), 6) for name, value in logs.items()})
    expected = {"progress": 0.25, "t_max": 0.98, "t_min": 0.3, "t": 500, "gradient_norm": 6.928203}
    assert found == [expected | {"least_eta": 0.0}, expected | {"least_eta": 0.5}]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_gradient(adapted, recipe, name):
    """Away from what the prior wants; NFSD is told what is bad, VSD and ASD what they train."""
    task = make_task(adapted, "a red thing", with_method(recipe, name))
    x, noise = jnp.full((1, *SHAPE), 0.5), jax.random.normal(KEY, SHAPE)
    assert (task.negative is None) == (name != "nfsd")

    @jax.jit
    def run():
        moment = seen(adapted, task.recipe)
        return method_step.gradient(adapted, task.recipe, task.shared, KEY, x, noise, moment)

    grad, _ = run()
    assert grad.shape == x.shape and jnp.isfinite(grad).all()
    # ASD and VSD ask for the difference to an adapter that changes nothing yet.
    assert (jnp.abs(grad).max() > 1e-3) == (not METHODS[name].trains)


def test_views_of_the_visible_side_forget_their_seed(task):
    """With eta 0 and visible_eta 1: SDS near the picture, DSD behind, a mixture in between."""
    azimuths = jnp.deg2rad(jnp.array([0.0, -55.0, 75.0, 200.0]))
    picture = Reference(jnp.zeros(()), jnp.ones((4, 4, 3)), jnp.ones((4, 4)))
    shared, x = task.shared._replace(reference=picture), jnp.full((4, *SHAPE), 0.5)

    @partial(jax.jit, static_argnums=0)
    def gradients(visible_eta, seed):
        recipe = changed(task.recipe, views=4, eta=0.0, visible_eta=visible_eta)
        views, _ = viewpoint_at(azimuths, jnp.full(4, 0.2), recipe.camera)
        noise = jnp.broadcast_to(jax.random.normal(jax.random.key(seed), SHAPE), x.shape)
        moment = seen(task.prior, recipe, viewpoints=views)
        return method_step.gradient(task.prior, recipe, shared, KEY, x, noise, moment)[0]

    assert isinstance(task.recipe.method, DSD)
    found, other, own = (gradients(*a) for a in ((1.0, 3), (1.0, 4), (0.0, 3)))
    same = [np.allclose(found[i], other[i], atol=1e-5) for i in range(4)]
    assert same == [True, True, False, False]
    assert [np.allclose(found[i], own[i], atol=1e-5) for i in range(4)] == [False] * 3 + [True]


# ---- the network that a method trains ------------------------------------------------------------


def train(prior, recipe: Recipe, shared, x, moment, key=KEY):
    return method_step.train(prior, recipe, shared, key, x, moment)


@pytest.fixture(scope="module")
def tiny(tiny_prior_folder, recipe):
    """A network that knows cameras and denoises two views together: (prior, recipe, shared)."""
    prior = load_prior(tiny_prior_folder)
    recipe = with_method(changed(recipe, views=2), "vsd", lora_rank=2, lora_rate=0.05)
    return prior, recipe, Shared(prior.params, prior.condition("a red house"))


def test_most_methods_train_nothing(task):
    assert method_step.initial(task.prior, task.recipe)(KEY) is None
    moment = seen(task.prior, task.recipe)
    assert train(task.prior, task.recipe, task.shared, None, moment) == (None, {})


def test_all_views_count_alike(adapted, recipe):
    """One step on two views is a step on the mean of their losses, each with its own view."""

    class Sided(Adapted):
        """What is to be seen from a side is blue."""

        def denoiser_at(self, params, condition, viewpoints):
            side = jnp.sin(viewpoints.azimuth) ** 2 > 0.5
            return super().denoiser_at(params, jnp.where(side, condition[::-1], condition), None)

    prior = completed(Sided(jnp.zeros(3)))
    recipe = with_method(changed(recipe, views=2), "vsd", lora_rate=0.02)
    red = prior.condition("red")
    places, _ = viewpoint_at(jnp.array([0.0, jnp.pi / 2]), jnp.zeros(2), recipe.camera)
    x, moment = jax.random.normal(KEY, (2, *SHAPE)), seen(prior, recipe, viewpoints=places)
    found, logs = train(prior, recipe, Shared(prior.params, red), x, moment)

    def learned_at(weights):
        at = [adapted.denoiser_at(weights, told, None)(1.0) for told in (red, red[::-1])]
        return lambda z, t: jnp.stack([one(z[i], t) for i, one in enumerate(at)])

    assert isinstance(recipe.method, VSD)
    expected, logged = recipe.method.update(
        KEY, moment.method, learned_at, None, prior.schedule, x, 500
    )
    assert int(found.opt_state[0].count) == 1
    assert np.abs(found.weights - moment.method.weights).max() > 0
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(logs["lora_loss"], logged["lora_loss"], rtol=1e-5)


def test_views_denoised_together_train_once(tiny):
    prior, recipe, shared = tiny
    moment = seen(prior, recipe)
    x = jnp.full((2, *prior.latent_shape), 0.5)
    after, logs = jax.jit(lambda: train(prior, recipe, shared, x, moment))()
    assert int(after.opt_state[0].count) == 1
    chex.assert_trees_all_equal_shapes_and_dtypes(moment.method, after)
    moved = [leaf for leaf in jax.tree.leaves(after.weights["mid_block"]) if leaf.any()]
    # B starts at 0 and A's gradient is a multiple of B: the first step moves B alone.
    assert len(moved) == len(jax.tree.leaves(after.weights["mid_block"]))
    assert np.isfinite(logs["lora_loss"])


def test_learning_the_renderings_lowers_the_loss(tiny):
    """The same view, again and again: what the adapter learns is to denoise it."""
    prior, recipe, shared = tiny
    recipe = changed(recipe, views=1)
    moment, x = seen(prior, recipe), jnp.full((1, *prior.latent_shape), 0.5)
    keys = jax.random.split(KEY, 8)

    @jax.jit
    def step(method, key):
        method, logs = train(prior, recipe, shared, x, moment._replace(method=method), key)
        return method, logs["lora_loss"]

    method = moment.method
    first = np.mean([step(method, key)[1] for key in keys])
    for i in range(150):
        method, _ = step(method, jax.random.fold_in(KEY, i))
    last = np.mean([step(method, key)[1] for key in keys])
    assert last < 0.97 * first  # of a random network's, of which attention is a small part


def test_a_seed_has_its_own_random_start(tiny):
    prior, recipe, _ = tiny
    init = method_step.initial(prior, recipe)
    weights = jax.jit(jax.vmap(lambda seed: init(method_key(seed))))(jnp.arange(2)).weights
    first = weights["mid_block"]["attentions_0"]["transformer_blocks_0"]["attn1"]
    assert first["to_q"]["a"].shape == (2, 16, 2) and not first["to_q"]["b"].any()
    assert np.abs(first["to_q"]["a"][0] - first["to_q"]["a"][1]).max() > 0
