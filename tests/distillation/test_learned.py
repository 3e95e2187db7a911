"""NFSD, VSD, ASD and CFD against closed forms on a Gaussian prior.

The prior is N(MEAN, VARIANCE) with an adapter that shifts its mean by s. In the letters of
schedule.py its prediction is sigma (z - alpha (MEAN + s)) / (alpha^2 VARIANCE + sigma^2).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_gaussian import KEY, MEAN, NOISE, PRIOR, SCHEDULE, VARIANCE, T, X, unweighted

from dsd_jax.distillation import ASD, CFD, FSD, NFSD, SDS, SIM, VSD, Given, Learned, noised
from dsd_jax.priors.gaussian import GaussianMixture


def shifted(shift):
    """The prediction of the prior moved by `shift`."""
    return lambda x_t, t: PRIOR.adapt(shift).eps(SCHEDULE, x_t, t)


def shifted_at(shift):
    """Text and unconditional prediction alike, whatever w, of the prior moved by `shift`."""
    return lambda w: shifted(shift)


def guided_at(w):
    """The text's prediction is the unconditional one plus 0.25."""
    return lambda x_t, t: PRIOR.eps(SCHEDULE, x_t, t) + 0.25 * w


def call(kind, at, t=T, learned=None, negative=None, **numbers):
    given, method = Given(learned=learned, negative=negative), unweighted(kind, **numbers)
    return np.asarray(method.gradient(KEY, at, SCHEDULE, X, NOISE, t, given)[0])


def slope(t):
    """- d eps / d shift of the mean, on the Gaussian prior."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    return alpha * sigma / (alpha**2 * VARIANCE + sigma**2)


# ---- NFSD --------------------------------------------------------------------------------------


def test_nfsd_goes_from_bad_pictures_to_the_prior_and_to_the_text():
    """Bad pictures are the prior moved by s: delta_D = - slope s; the text adds 0.25 w."""
    s = jnp.array([-0.4, 0.8])
    found = call(NFSD, guided_at, negative=shifted(s), guidance_scale=2.0)
    np.testing.assert_allclose(found, slope(T) * s + 0.5, rtol=1e-4)
    assert not call(NFSD, shifted_at(0.0), negative=shifted(0.0)).any()


@pytest.mark.parametrize(("t", "away"), [(199, 0.0), (200, 1.0)])
def test_nfsd_asks_for_bad_pictures_from_a_fifth_of_all_timesteps(t, away):
    found = call(NFSD, lambda w: lambda x_t, t: x_t * 0 + 3, t, negative=lambda x_t, t: x_t * 0 + 1)
    np.testing.assert_allclose(found, 3 - away)


# ---- VSD and ASD -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [VSD, ASD])
def test_the_gradient_is_the_distance_of_two_predictions(kind):
    """eps_prior - eps_learned = slope s wherever x is and whatever the noise."""
    s = jnp.array([0.3, -0.2])
    found = call(kind, shifted_at(0.0), learned=shifted(s))
    np.testing.assert_allclose(found, slope(T) * s, rtol=1e-4)
    guided = call(kind, guided_at, learned=shifted(s), guidance_scale=7.5)
    np.testing.assert_allclose(guided, slope(T) * s + 0.25 * 7.5, rtol=1e-4)


@pytest.mark.parametrize("kind", [VSD, ASD])
def test_samples_of_the_prior_are_left_alone(kind):
    """Once the network knows that samples are the prior's own, the gradient is zero at w = 1."""
    assert not call(kind, shifted_at(0.0), learned=shifted(jnp.zeros(2))).any()


@partial(jax.jit, static_argnums=0)
def train(method, displacement):
    """The shift that is learned from samples of the prior that are displaced."""

    def step(state, key):
        draw, key = jax.random.split(key)
        x = MEAN + displacement + jnp.sqrt(VARIANCE) * jax.random.normal(draw, (64, 2))
        # 64 samples at once stand for the views of a step.
        state, _ = method.update(key, state, shifted, shifted_at(0.0), SCHEDULE, x, T)
        return state, state.weights

    state = method.init(KEY, PRIOR.init_adapter)
    shifts = jax.lax.scan(step, state, jax.random.split(KEY, 600))[1]
    return shifts[-100:].mean(0)


def test_vsd_learns_where_the_samples_are():
    displacement = jnp.array([0.5, -0.3])
    found = train(VSD(lora_rate=0.02), displacement)
    np.testing.assert_allclose(found, displacement, atol=0.05)


@pytest.mark.parametrize("gamma", [0.0, -0.5])
def test_asd_overshoots_it_by_the_factor_of_its_loss(gamma):
    """|eps_phi - eps|^2 + gamma |eps_phi - eps_text|^2 is least at s = displacement / (1 + gamma).

    For eps_phi - E[eps | z] = slope (displacement - s) and eps_phi - eps_text = - slope s.
    """
    displacement = jnp.array([0.5, -0.3])
    found = train(ASD(lora_rate=0.02, gamma=gamma), displacement)
    np.testing.assert_allclose(found, displacement / (1 + gamma), atol=0.1)


def test_asd_without_its_second_term_is_vsd():
    state = VSD().init(KEY, PRIOR.init_adapter)
    state = Learned(state.weights + 0.1, state.opt_state)
    told = KEY, state, shifted, shifted_at(0.0), SCHEDULE, X, T
    ours, logs = ASD(gamma=0.0).update(*told)
    theirs, expected = VSD().update(*told)
    np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-6)
    np.testing.assert_allclose(logs["lora_loss"], expected["lora_loss"], rtol=1e-6)


def test_vsd_of_untrained_network_is_csd_without_noise():
    """At the start eps_learned is the prior's text: what is left is (w - 1) times the guidance."""
    at_start = call(VSD, guided_at, learned=guided_at(1.0), guidance_scale=3.0)
    np.testing.assert_allclose(at_start, 0.25 * (3.0 - 1.0), rtol=1e-4)


# ---- SIM ---------------------------------------------------------------------------------------


def unit(s):
    return s / jnp.linalg.norm(s)


def test_sim_pulls_displaced_samples_back_by_a_length_of_its_own():
    """sigma^2 / (alpha^2 VARIANCE + sigma^2) along s, however large s is; by hand where u is fixed.

    With one variance for both coordinates xhat - xhat_lora is along - s wherever z is.
    """
    alpha, sigma = SCHEDULE.alpha(T), SCHEDULE.sigma(T)
    even = GaussianMixture(jnp.zeros(1), MEAN[None], jnp.full((1, 2), 0.4))
    for size in (1.0, 100.0):
        s = size * jnp.array([0.3, -0.2])
        learned = partial(even.adapt(s).eps, SCHEDULE)
        found = call(SIM, lambda w: partial(even.eps, SCHEDULE), learned=learned)
        expected = sigma**2 / (alpha**2 * 0.4 + sigma**2) * unit(s) / SCHEDULE.s(T)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_sim_differentiates_the_direction_as_well():
    """Against the loss in float64, by central differences; guidance bends the field here."""

    def bent_at(w):
        return lambda z, t: PRIOR.eps(SCHEDULE, z, t) + 0.25 * w * jnp.sin(z)

    s = jnp.array([0.3, -0.2])
    found = call(SIM, bent_at, learned=shifted(s), guidance_scale=2.0)
    with jax.enable_x64(True):
        x = np.asarray(X, np.float64)
        alpha, sigma = float(SCHEDULE.alpha(T)), float(SCHEDULE.sigma(T))
        eps = (np.asarray(noised(KEY, SCHEDULE, X, T)[0]) - alpha * x) / sigma
        mean, variance = np.asarray(MEAN, np.float64), np.asarray(VARIANCE, np.float64)

        def loss(x):
            z = alpha * x + sigma * eps
            ours = sigma * (z - alpha * mean) / (alpha**2 * variance + sigma**2)
            learned = ours - alpha * sigma * np.asarray(s) / (alpha**2 * variance + sigma**2)
            xhat = (z - sigma * (ours + 0.5 * np.sin(z))) / alpha
            xhat_lora = (z - sigma * learned) / alpha
            apart = xhat - xhat_lora
            return apart / np.linalg.norm(apart) @ (xhat_lora - x)

        steps = 1e-5 * np.eye(2)
        expected = [(loss(x + step) - loss(x - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(found, np.array(expected) * alpha / sigma, rtol=1e-3)


# ---- CFD ---------------------------------------------------------------------------------------


def test_cfd_is_fsd_on_noise_that_lies_on_the_surface():
    assert CFD.view_noise == "attached" and FSD.view_noise == "shared"
    expected = PRIOR.eps(SCHEDULE, SCHEDULE.add_noise(X, NOISE, T), T) - NOISE
    np.testing.assert_allclose(call(CFD, shifted_at(0.0)), expected, rtol=1e-5)
    np.testing.assert_allclose(
        call(CFD, guided_at, guidance_scale=3.0, fresh_share=0.3),
        call(FSD, guided_at, guidance_scale=3.0, fresh_share=0.3), rtol=1e-6,
    )  # fmt: skip
    np.testing.assert_allclose(
        call(CFD, shifted_at(0.0), fresh_share=1.0), call(SDS, shifted_at(0.0)), rtol=1e-5
    )
