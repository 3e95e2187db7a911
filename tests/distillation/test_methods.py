"""What every distillation method promises; a new one is tested without an edit here."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.distillation import METHODS
from dsd_jax.distillation.common import Method, taken
from dsd_jax.guidance import classifier_free
from dsd_jax.priors.gaussian import GaussianMixture
from dsd_jax.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.from_config(
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
)
KEY = jax.random.key(0)
SHAPES = [(4, 4, 3), (2, 4, 4, 3)]
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
TRAINED = {name: method for name, method in METHODS.items() if method.init}
every_trained_method = pytest.mark.parametrize("method", TRAINED.values(), ids=TRAINED)


def prior(shape):
    means = jax.random.normal(jax.random.key(1), (3, *shape))
    return GaussianMixture(jnp.zeros(3), means, jnp.full(means.shape, 0.1))


def same(network):
    return network


def denoiser_at(mixture, *components, wrap=same):
    network = wrap(mixture.network(SCHEDULE))
    return classifier_free(network, mixture.only(*components), mixture.log_weights)


def gradient(method, key, x, seed_noise, t, mixture=None, wrap=same, **settings):
    """With all that a method may ask for: an adapter that has learned something, bad pictures."""
    mixture = prior(x.shape) if mixture is None else mixture
    offered = {
        "learned": denoiser_at(mixture.adapt(0.3), 0, wrap=wrap),
        "negative": denoiser_at(mixture, 1, wrap=wrap)(1.0),
    }
    given = taken(method.gradient, offered) | settings
    at = denoiser_at(mixture, 0, wrap=wrap)
    return method.gradient(key, at, SCHEDULE, x, seed_noise, t, **given)


jitted = jax.jit(gradient, static_argnums=0)


def inputs(shape=SHAPES[0], seed=0):
    return jax.random.normal(jax.random.key(10 + seed), (2, *shape))


@every_method
def test_signature(method: Method):
    """The same leading arguments for all, everything else by keyword; init and update together."""
    names = "key", "denoiser_at", "schedule", "x", "seed_noise", "t"
    given = inspect.signature(method.gradient).parameters.values()
    assert tuple(p.name for p in given if p.kind is not p.KEYWORD_ONLY) == names
    assert (method.init is None) == (method.update is None)


@every_method
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_finite_values_at_every_timestep(method, shape):
    x, noise = inputs(shape)
    for t in (0, 1, 320, 500, 998, 999):
        grad, aux = jitted(method, KEY, x, noise, t)
        assert grad.shape == shape and grad.dtype == jnp.float32
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0
        assert all(value.shape == () and np.isfinite(value) for value in aux.values())
        np.testing.assert_allclose(aux["gradient_norm"], np.linalg.norm(grad), rtol=1e-5)


@every_method
def test_jit_with_a_traced_timestep_changes_nothing(method):
    x, noise = inputs()
    for t in (980, 320):
        plain = gradient(method, KEY, x, noise, t)[0]
        np.testing.assert_allclose(jitted(method, KEY, x, noise, t)[0], plain, rtol=1e-4, atol=1e-4)


@every_method
def test_vmap_over_seeds_is_a_loop_over_seeds(method):
    x, noise = jnp.stack([inputs(seed=seed) for seed in range(3)], axis=1)
    keys = jax.random.split(KEY, 3)
    seeds = jax.vmap(lambda *seed: jitted(method, *seed, 600)[0])
    batched = jax.jit(seeds)(keys, x, noise)
    for i in range(3):
        alone = jitted(method, keys[i], x[i], noise[i], 600)[0]
        np.testing.assert_allclose(batched[i], alone, rtol=1e-4, atol=1e-4)


@every_method
def test_randomness_is_the_key_or_the_seed_noise(method):
    """The same inputs, the same gradient; what a method draws from or ignores is its own affair."""
    x, noise = inputs()
    first, again = (jitted(method, KEY, x, noise, 700)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("name", "by_key", "by_seed"),
    [("dsd", True, True), ("sds", True, False), ("csd", True, False), ("sdi", True, False),
     ("nfsd", True, False), ("vsd", True, False), ("asd", True, False), ("fsd", False, True),
     ("cfd", False, True), ("ism", False, False)],
)  # fmt: skip
def test_what_the_gradient_depends_on(name, by_key, by_seed):
    x, noise = inputs()
    method, other = METHODS[name], jax.random.key(1)
    first = jitted(method, KEY, x, noise, 700)[0]
    moved_by_key = np.abs(jitted(method, other, x, noise, 700)[0] - first).max() > 1e-3
    moved_by_seed = np.abs(jitted(method, KEY, x, noise[::-1], 700)[0] - first).max() > 1e-3
    assert (moved_by_key, moved_by_seed) == (by_key, by_seed)


@every_method
def test_nothing_flows_back_through_the_method(method):
    x, noise = inputs()

    def total(mean, x, noise):
        mixture = prior(x.shape)._replace(mean=mean)
        return gradient(method, KEY, x, noise, 600, mixture)[0].sum()

    arguments = prior(x.shape).mean, x, noise
    for derivative in jax.jacfwd(total, argnums=(0, 1, 2))(*arguments):
        assert not derivative.any()
    assert not jax.grad(total, argnums=1)(*arguments).any()


@every_method
def test_arithmetic_is_float32_around_a_half_precision_network(method):
    x, noise = inputs()
    seen = []

    def half(network):
        def rounded(x_t, t, conditioning):
            seen.append(x_t.dtype)
            return network(x_t, t, conditioning).astype(jnp.bfloat16)

        return rounded

    grad, _ = gradient(method, KEY, x, noise, 600, wrap=half)
    assert grad.dtype == jnp.float32 and set(seen) == {jnp.dtype("float32")}
    low = grad.astype(jnp.bfloat16).astype(jnp.float32)
    assert (low != grad).any()  # the difference itself was not rounded to bfloat16


@every_method
def test_the_weight_scales_the_gradient(method):
    x, noise = inputs()
    plain, _ = gradient(method, KEY, x, noise, 600, weight=lambda schedule, t: 1.0)
    default = jitted(method, KEY, x, noise, 600)[0]
    np.testing.assert_allclose(default, SCHEDULE.variance(600) * plain, rtol=1e-4, atol=1e-4)


# ---- methods that train a network --------------------------------------------------------------


def train(method, key, state, x, t):
    """One update on x, of an adapter that shifts the mixture's means."""
    mixture = prior(x.shape)
    given = taken(method.update, {"denoiser_at": denoiser_at(mixture, 0)})

    def learned_at(weights):
        return denoiser_at(mixture.adapt(weights), 0)

    return method.update(key, state, learned_at, SCHEDULE, x, t, **given)


def begin(method, shape=SHAPES[0]):
    return method.init(KEY, prior(shape).init_adapter)


trained = jax.jit(train, static_argnums=0)


@every_trained_method
@pytest.mark.parametrize("shape", SHAPES)
def test_training_starts_at_the_prior_and_keeps_its_shapes(method, shape):
    state, (x, _) = begin(method, shape), inputs(shape)
    chex.assert_trees_all_equal(state.weights, prior(shape).init_adapter(KEY))
    after, aux = trained(method, KEY, state, x, 600)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, aux)))
    assert np.abs(after.weights - state.weights).max() > 0
    assert all(value.shape == () for value in aux.values())


@every_trained_method
def test_training_is_the_same_compiled_and_for_many_seeds(method):
    """Every seed's network is trained by itself: vmap is a loop."""
    x = jnp.stack([inputs(seed=seed)[0] for seed in range(3)])
    keys, state = jax.random.split(KEY, 3), begin(method)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    together = jax.vmap(lambda key, state, x: train(method, key, state, x, 600))
    batched, _ = jax.jit(together)(keys, states, x)
    for i in range(3):
        alone, _ = train(method, keys[i], state, x[i], 600)
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        chex.assert_trees_all_close(one, alone, rtol=1e-3, atol=1e-5)
    assert np.abs(batched.weights[0] - batched.weights[1]).max() > 0
