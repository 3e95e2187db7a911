"""The analytic prior against brute force and automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.priors.base import Picture, Viewpoint
from dsd_jax.priors.gaussian import GaussianMixture, GaussianPrior, ode_solution
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


# ---- as a prior ---------------------------------------------------------------------------------


@pytest.fixture
def pictures():
    """Red, and blue, and a blue gray, all 4 x 6 and flat."""
    colours = jnp.array([[1.0, -1, -1], [-1, -1, 1], [-0.5, -0.5, 0.5]])
    mean = jnp.broadcast_to(colours[:, None, None], (3, 4, 6, 3))
    mixture = GaussianMixture(jnp.zeros(3), mean, jnp.full_like(mean, 1e-2))
    return GaussianPrior(mixture, SCHEDULE, ("red", "blue", "blue gray"))


@pytest.mark.parametrize(
    ("prompt", "named"),
    [("a Red house", [0]), ("blue, gray", [1]), ("a blue gray cat", [1, 2]), ("tired", [0, 1, 2])],
)
def test_prompts_name_components(pictures, prompt, named):
    chosen = pictures.condition(prompt, negative_prompt="red", view_prompts="none")
    np.testing.assert_array_equal(chosen, pictures.params.only(*named))


def test_a_prompt_s_prior_is_the_mixture_s_own(pictures):
    x, told = jax.random.normal(KEY, pictures.latent_shape), pictures.condition("a red house")
    view = Viewpoint(jnp.zeros(()), jnp.zeros(()), jnp.eye(4))
    found = pictures.denoiser_at(pictures.params, told, view)(4.0)(x, 300)
    mixture = pictures.params
    np.testing.assert_array_equal(
        found, mixture.denoiser_at(SCHEDULE, mixture.only(0))(4.0)(x, 300)
    )
    shifted = pictures.adapt(mixture, pictures.init_adapter(KEY, mixture, 4) + 0.1)
    np.testing.assert_array_equal(shifted.mean, mixture.mean + 0.1)
    assert pictures.tells_apart(told) == "nothing" and pictures.image_size == 4
    with pytest.raises(ValueError, match="takes a prompt and not a picture"):
        pictures.condition(Picture(jnp.ones((2, 2, 3)), jnp.zeros(())))


def test_its_latents_are_pictures(pictures):
    image = jax.random.uniform(KEY, (8, 12, 3))
    x = pictures.encode(pictures.params, image)
    small = jax.image.resize(image, (4, 6, 3), "bilinear")
    np.testing.assert_allclose(pictures.decode(pictures.params, x), small, atol=1e-6)
    assert x.min() < 0
