"""CSD, FSD, ISM and SDI against closed forms on a Gaussian prior."""

from itertools import pairwise

import numpy as np
import pytest
from one_gaussian import KEY, MEAN, NOISE, PRIOR, SCHEDULE, VARIANCE, T, X, unweighted

from dsd_jax.distillation import CSD, FSD, ISM, SDI, SDS
from dsd_jax.distillation.inversion import invert
from dsd_jax.priors.gaussian import ode_solution


def denoiser_at(w):
    """Text and unconditional prediction alike, whatever w."""
    return lambda x_t, t: PRIOR.eps(SCHEDULE, x_t, t)


def shifted_at(w):
    """The text's prediction is the unconditional one plus 0.25."""
    return lambda x_t, t: PRIOR.eps(SCHEDULE, x_t, t) + 0.25 * w


def call(kind, at, **numbers):
    grad, _ = unweighted(kind, **numbers).gradient(KEY, at, SCHEDULE, X, NOISE, T)
    return np.asarray(grad)


def test_inversion_climbs_the_exact_ode():
    exact = ode_solution(MEAN, VARIANCE, SCHEDULE, X, 0, T)
    errors = [
        np.abs(invert(denoiser_at(1.0), SCHEDULE, X, T, steps) - exact).max()
        for steps in (10, 20, 40)
    ]
    assert errors[2] < 0.1
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2.0, rel=0.3)  # Euler: of first order


def test_csd_is_the_difference_that_the_text_makes():
    np.testing.assert_allclose(call(CSD, shifted_at, guidance_scale=3.0), 0.75, rtol=1e-5)
    assert not call(CSD, denoiser_at).any()


def test_fsd_with_fresh_noise_alone_is_sds_and_without_keeps_the_seeds():
    expected = PRIOR.eps(SCHEDULE, SCHEDULE.add_noise(X, NOISE, T), T) - NOISE
    np.testing.assert_allclose(call(FSD, denoiser_at), expected, rtol=1e-5)
    np.testing.assert_allclose(
        call(FSD, denoiser_at, fresh_share=1.0), call(SDS, denoiser_at), rtol=1e-5
    )


def test_ism_compares_two_points_of_the_unconditional_ode():
    x_s = ode_solution(MEAN, VARIANCE, SCHEDULE, X, 0, T - 50)
    x_t = ode_solution(MEAN, VARIANCE, SCHEDULE, X, 0, T)
    exact = PRIOR.eps(SCHEDULE, x_t, T) - PRIOR.eps(SCHEDULE, x_s, T - 50)
    found = call(ISM, denoiser_at, inversion_steps=100)
    np.testing.assert_allclose(found, exact, atol=0.01)
    guided = call(ISM, shifted_at, inversion_steps=100, guidance_scale=2.0)
    np.testing.assert_allclose(guided - found, 0.5, rtol=1e-5)


def test_sdi_takes_the_noise_of_the_ode():
    x_t = ode_solution(MEAN, VARIANCE, SCHEDULE, X, 0, T)
    kappa = (x_t - SCHEDULE.alpha(T) * X) / SCHEDULE.sigma(T)
    exact = PRIOR.eps(SCHEDULE, x_t, T) - kappa
    found = call(SDI, denoiser_at, inversion_steps=100, inversion_eta=0.0)
    np.testing.assert_allclose(found, exact, atol=0.02)
    # Guided by -w on the way up, the noise carries the opposite of the text's shift.
    guided = call(SDI, shifted_at, inversion_steps=100, inversion_eta=0.0, guidance_scale=1.0)
    assert (guided > found).all()
