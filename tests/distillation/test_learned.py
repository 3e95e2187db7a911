"""NFSD, VSD, ASD and CFD against closed forms on a Gaussian prior.

The prior is N(MEAN, VARIANCE) with an adapter that shifts its mean by s. In the letters of
schedule.py its prediction is sigma (z - alpha (MEAN + s)) / (alpha^2 VARIANCE + sigma^2).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_gaussian import KEY, MEAN, NOISE, PRIOR, SCHEDULE, VARIANCE, T, X, one

from dsd_jax.distillation import METHODS, asd, cfd, fsd, nfsd, sds, vsd
from dsd_jax.distillation.learned import Learned


def shifted_at(shift):
    """Text and unconditional prediction alike, whatever w, of the prior moved by `shift`."""
    return lambda w: lambda x_t, t: PRIOR.adapt(shift).eps(SCHEDULE, x_t, t)


def guided_at(w):
    """The text's prediction is the unconditional one plus 0.25."""
    return lambda x_t, t: PRIOR.eps(SCHEDULE, x_t, t) + 0.25 * w


def call(method, at, t=T, **settings):
    grad, _ = method.gradient(KEY, at, SCHEDULE, X, NOISE, t, weight=one, **settings)
    return np.asarray(grad)


def slope(t):
    """- d eps / d shift of the mean, on the Gaussian prior."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    return alpha * sigma / (alpha**2 * VARIANCE + sigma**2)


# ---- NFSD --------------------------------------------------------------------------------------


def test_nfsd_goes_from_bad_pictures_to_the_prior_and_to_the_text():
    """Bad pictures are the prior moved by s: delta_D = - slope s; the text adds 0.25 w."""
    s = jnp.array([-0.4, 0.8])
    found = call(nfsd, guided_at, negative=shifted_at(s)(1.0), guidance_scale=2.0)
    np.testing.assert_allclose(found, slope(T) * s + 0.5, rtol=1e-4)
    assert not call(nfsd, shifted_at(0.0), negative=shifted_at(0.0)(1.0)).any()


@pytest.mark.parametrize(("t", "away"), [(199, 0.0), (200, 1.0)])
def test_nfsd_asks_for_bad_pictures_from_a_fifth_of_all_timesteps(t, away):
    found = call(nfsd, lambda w: lambda x_t, t: x_t * 0 + 3, t, negative=lambda x_t, t: x_t * 0 + 1)
    np.testing.assert_allclose(found, 3 - away)


# ---- VSD and ASD -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [vsd, asd])
def test_the_gradient_is_the_distance_of_two_predictions(method):
    """eps_prior - eps_learned = slope s wherever x is and whatever the noise."""
    s = jnp.array([0.3, -0.2])
    found = call(method, shifted_at(0.0), learned=shifted_at(s))
    np.testing.assert_allclose(found, slope(T) * s, rtol=1e-4)
    guided = call(method, guided_at, learned=shifted_at(s), guidance_scale=7.5)
    np.testing.assert_allclose(guided, slope(T) * s + 0.25 * 7.5, rtol=1e-4)


@pytest.mark.parametrize("method", [vsd, asd])
def test_samples_of_the_prior_are_left_alone(method):
    """Once the network knows that samples are the prior's own, the gradient is zero at w = 1."""
    assert not call(method, shifted_at(0.0), learned=shifted_at(jnp.zeros(2))).any()


def train(update, displacement, steps=600, lora_rate=0.02, **given):
    """The shift that is learned from samples of the prior that are displaced."""

    def learned_at(weights):
        return shifted_at(weights)

    def step(state, key):
        draw, key = jax.random.split(key)
        x = MEAN + displacement + jnp.sqrt(VARIANCE) * jax.random.normal(draw, (64, 2))
        # 64 samples at once stand for the views of a step.
        state, _ = update(key, state, learned_at, SCHEDULE, x, T, lora_rate=lora_rate, **given)
        return state, state.weights

    state = vsd.init(KEY, PRIOR.init_adapter, lora_rate=lora_rate)
    shifts = jax.lax.scan(step, state, jax.random.split(KEY, steps))[1]
    return np.asarray(shifts[-100:].mean(0))


def test_vsd_learns_where_the_samples_are():
    displacement = jnp.array([0.5, -0.3])
    np.testing.assert_allclose(train(vsd.update, displacement), displacement, atol=0.05)


@pytest.mark.parametrize("gamma", [0.0, -0.5])
def test_asd_overshoots_it_by_the_factor_of_its_loss(gamma):
    """|eps_phi - eps|^2 + gamma |eps_phi - eps_text|^2 is least at s = displacement / (1 + gamma).

    For eps_phi - E[eps | z] = slope (displacement - s) and eps_phi - eps_text = - slope s.
    """
    displacement = jnp.array([0.5, -0.3])
    update = partial(asd.update, denoiser_at=shifted_at(0.0), gamma=gamma)
    found = train(update, displacement)
    np.testing.assert_allclose(found, displacement / (1 + gamma), atol=0.1)


def test_asd_without_its_second_term_is_vsd():
    state = vsd.init(KEY, PRIOR.init_adapter)
    given = KEY, Learned(state.weights + 0.1, state.opt_state), shifted_at, SCHEDULE, X, T
    ours, aux = asd.update(*given, denoiser_at=shifted_at(0.0), gamma=0.0)
    theirs, expected = vsd.update(*given)
    np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-6)
    np.testing.assert_allclose(aux["lora_loss"], expected["lora_loss"], rtol=1e-6)


def test_vsd_of_untrained_network_is_csd_without_noise():
    """At the start eps_learned is the prior's text: what is left is (w - 1) times the guidance."""
    at_start = call(vsd, guided_at, learned=guided_at, guidance_scale=3.0)
    np.testing.assert_allclose(at_start, 0.25 * (3.0 - 1.0), rtol=1e-4)


# ---- CFD ---------------------------------------------------------------------------------------


def test_cfd_is_fsd_on_noise_that_lies_on_the_surface():
    assert METHODS["cfd"].view_noise == "attached" and METHODS["fsd"].view_noise == "shared"
    expected = PRIOR.eps(SCHEDULE, SCHEDULE.add_noise(X, NOISE, T), T) - NOISE
    np.testing.assert_allclose(call(cfd, shifted_at(0.0)), expected, rtol=1e-5)
    np.testing.assert_allclose(
        call(cfd, guided_at, guidance_scale=3.0, fresh_share=0.3),
        call(fsd, guided_at, guidance_scale=3.0, fresh_share=0.3), rtol=1e-6,
    )  # fmt: skip
    np.testing.assert_allclose(
        call(cfd, shifted_at(0.0), fresh_share=1.0), call(sds, shifted_at(0.0)), rtol=1e-5
    )
