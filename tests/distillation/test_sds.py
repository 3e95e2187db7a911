"""SDS against its equation."""

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.distillation import SDS
from dsd_jax.priors.gaussian import GaussianMixture
from dsd_jax.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.from_config(
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
)
PRIOR = GaussianMixture(jnp.zeros(2), jnp.array([[1.0, 2.0], [-1.0, 0.0]]), jnp.full((2, 2), 0.2))
DENOISER_AT = PRIOR.denoiser_at(SCHEDULE, PRIOR.only(0))


def test_gradient_is_the_equation():
    """With the network replaced by a constant c, E[gradient] = sigma^2 c and Var = sigma^4."""
    x, t, constant = jnp.zeros(2), 400, jnp.array([0.5, -2.0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    constant_at = lambda scale: lambda x_t, t: scale * constant  # noqa: E731
    method = SDS(guidance_scale=3.0)
    gradients = jax.vmap(lambda key: method.gradient(key, constant_at, SCHEDULE, x, x, t)[0])(keys)
    variance = SCHEDULE.variance(t)
    np.testing.assert_allclose(gradients.mean(0), variance * 3.0 * constant, atol=0.02)
    np.testing.assert_allclose(gradients.var(0), variance**2, rtol=0.05)


def test_the_seed_noise_plays_no_part():
    x = jnp.array([0.3, 0.1])
    one, other = (
        SDS().gradient(jax.random.key(0), DENOISER_AT, SCHEDULE, x, noise, 400)[0]
        for noise in (jnp.zeros(2), jnp.ones(2))
    )
    np.testing.assert_array_equal(one, other)


def test_every_seed_descends_to_the_same_mode():
    """What DSD is there to avoid: guided SDS ends where it ends, whatever the start."""
    method = SDS(guidance_scale=10.0)

    def descend(key):
        start, key = jax.random.normal(key, (2,)), jax.random.fold_in(key, 1)

        def step(x, i):
            key_i = jax.random.fold_in(key, i)
            grad, _ = method.gradient(key_i, DENOISER_AT, SCHEDULE, x, x, 700 - i)
            return x - 0.05 * grad, None

        return jax.lax.scan(step, start, jnp.arange(400))[0]

    ends = jax.jit(jax.vmap(descend))(jax.random.split(jax.random.key(0), 16))
    assert ends.std(0).max() < 0.3
