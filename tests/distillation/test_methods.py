"""What every distillation method promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.distillation import METHODS
from dsd_jax.guidance import classifier_free
from dsd_jax.priors.gaussian import GaussianMixture
from dsd_jax.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.from_config(
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
)
KEY = jax.random.key(0)
SHAPES = [(4, 4, 3), (2, 4, 4, 3)]
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def prior(shape):
    means = jax.random.normal(jax.random.key(1), (3, *shape))
    return GaussianMixture(jnp.zeros(3), means, jnp.full(means.shape, 0.1))


def gradient(method, key, x, seed_noise, t, **settings):
    mixture = prior(x.shape)
    denoiser_at = mixture.denoiser_at(SCHEDULE, mixture.only(0))
    return method(key, denoiser_at, SCHEDULE, x, seed_noise, t, **settings)


jitted = jax.jit(gradient, static_argnums=0)


def inputs(shape=SHAPES[0], seed=0):
    return jax.random.normal(jax.random.key(10 + seed), (2, *shape))


@every_method
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_finite_values_at_every_timestep(method, shape):
    x, noise = inputs(shape)
    for t in (0, 1, 320, 500, 999):
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
     ("fsd", False, True), ("ism", False, False)],
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
        denoiser_at = mixture.denoiser_at(SCHEDULE, mixture.only(0))
        return method(KEY, denoiser_at, SCHEDULE, x, noise, 600)[0].sum()

    arguments = prior(x.shape).mean, x, noise
    for derivative in jax.jacfwd(total, argnums=(0, 1, 2))(*arguments):
        assert not derivative.any()
    assert not jax.grad(total, argnums=1)(*arguments).any()


@every_method
def test_arithmetic_is_float32_around_a_half_precision_network(method):
    x, noise = inputs()
    mixture = prior(x.shape)
    network = mixture.network(SCHEDULE)
    seen = []

    def half(x_t, t, conditioning):
        eps = network(x_t, t, conditioning).astype(jnp.bfloat16)
        seen.append(x_t.dtype)
        return eps

    denoiser_at = classifier_free(half, mixture.only(0), mixture.log_weights)
    grad, _ = method(KEY, denoiser_at, SCHEDULE, x, noise, 600)
    assert grad.dtype == jnp.float32 and set(seen) == {jnp.dtype("float32")}
    low = grad.astype(jnp.bfloat16).astype(jnp.float32)
    assert (low != grad).any()  # the difference itself was not rounded to bfloat16


@every_method
def test_the_weight_scales_the_gradient(method):
    x, noise = inputs()
    plain, _ = gradient(method, KEY, x, noise, 600, weight=lambda schedule, t: 1.0)
    default = jitted(method, KEY, x, noise, 600)[0]
    np.testing.assert_allclose(default, SCHEDULE.variance(600) * plain, rtol=1e-4, atol=1e-4)
