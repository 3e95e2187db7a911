"""The analytic prior against brute force and automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.priors.gaussian import GaussianMixture, ode_solution
from dsd_jax.schedule import CLEAN, NoiseSchedule

SCHEDULE = NoiseSchedule.from_config(
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
)
KEY = jax.random.key(0)


def mixture(event):
    means, variances = jax.random.normal(KEY, (2, 3, *event))
    return GaussianMixture(jnp.log(jnp.array([0.2, 0.5, 0.3])), means, jnp.exp(variances))


@pytest.mark.parametrize("event", [(2,), (2, 3, 4)])
@pytest.mark.parametrize("t", [1, 500, 999])
def test_eps_is_minus_sigma_times_the_score(event, t):
    prior, x_t = mixture(event), jax.random.normal(jax.random.key(1), event)

    def log_density(x_t):
        total = 0.0
        for log_weight, mean, variance in zip(*prior, strict=True):
            deviation = jnp.sqrt(SCHEDULE.alpha(t) ** 2 * variance + SCHEDULE.sigma(t) ** 2)
            logs = jax.scipy.stats.norm.logpdf(x_t, SCHEDULE.alpha(t) * mean, deviation)
            total += jnp.exp(log_weight + logs.sum())
        return jnp.log(total)

    expected = -SCHEDULE.sigma(t) * jax.grad(log_density)(x_t)
    np.testing.assert_allclose(prior.eps(SCHEDULE, x_t, t), expected, rtol=1e-3, atol=1e-4)


def test_conditioning_selects_components():
    prior, x_t = mixture((2,)), jnp.array([0.4, -0.2])
    alone = GaussianMixture(jnp.zeros(1), prior.mean[1:2], prior.variance[1:2])
    chosen = prior.eps(SCHEDULE, x_t, 300, prior.only(1))
    np.testing.assert_allclose(chosen, alone.eps(SCHEDULE, x_t, 300), rtol=1e-6)
    np.testing.assert_allclose(
        prior.eps(SCHEDULE, x_t, 300, prior.only(0, 1, 2)), prior.eps(SCHEDULE, x_t, 300), rtol=1e-6
    )


def test_denoiser_guides_from_the_whole_mixture_to_the_text():
    prior, x_t = mixture((2,)), jnp.array([0.4, -0.2])
    text = prior.only(2)
    uncond, cond = prior.eps(SCHEDULE, x_t, 300), prior.eps(SCHEDULE, x_t, 300, text)
    guided = prior.denoiser_at(SCHEDULE, text)(4.0)(x_t, 300)
    np.testing.assert_allclose(guided, uncond + 4.0 * (cond - uncond), rtol=1e-5)


def test_closed_form_solves_the_ode():
    """d(x / alpha) / ds = eps, by central differences between timesteps in float64."""
    with jax.enable_x64(True):
        schedule = NoiseSchedule(jnp.cos(jnp.linspace(0.1, 1.4, 2000)) ** 2)
        prior = GaussianMixture(jnp.zeros(1), jnp.array([[0.7, -1.2]]), jnp.array([[0.5, 0.05]]))
        mean, variance, x_T = prior.mean[0], prior.variance[0], jnp.array([0.3, -1.1])
        solution = lambda t: ode_solution(mean, variance, schedule, x_T, 1999, t)  # noqa: E731
        np.testing.assert_allclose(solution(1999), x_T, rtol=1e-12)
        for t in (100, 1000, 1900):
            rise = solution(t + 1) / schedule.alpha(t + 1) - solution(t - 1) / schedule.alpha(t - 1)
            slope = rise / (schedule.s(t + 1) - schedule.s(t - 1))
            np.testing.assert_allclose(slope, prior.eps(schedule, solution(t), t), rtol=1e-4)


def test_closed_form_carries_noise_to_the_data_distribution():
    mean, variance = jnp.array([2.0, -1.0]), jnp.array([0.25, 4.0])
    noise = jax.random.normal(KEY, (20_000, 2))
    scale = jnp.sqrt(SCHEDULE.alpha(999) ** 2 * variance + SCHEDULE.variance(999))
    x_T = SCHEDULE.alpha(999) * mean + scale * noise
    x_0 = ode_solution(mean, variance, SCHEDULE, x_T, 999, CLEAN)
    np.testing.assert_allclose(x_0.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(x_0.var(0), variance, rtol=0.05)
