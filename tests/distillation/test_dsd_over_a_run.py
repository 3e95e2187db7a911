"""What changes over a run of DSD: the range of t', and the share of fresh noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax import ode
from dsd_jax.distillation import DSD, SDS, Given
from dsd_jax.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.from_config(
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
)
KEY = jax.random.key(0)


def test_the_lower_clamp_rises_late():
    """At t = 0 t' is the clamp itself; it is late once the root of the progress is above 0.75."""
    draw = jax.jit(lambda progress: DSD().draw_t_prime(KEY, SCHEDULE, 0, progress))
    found = [int(draw(step / 10_000)) for step in (0, 5624, 5626, 10_000)]
    assert found == [1, 1, 10, 10]
    assert DSD().draw_t_prime(KEY, SCHEDULE, 0) == 1
    assert DSD(t_prime_min=3).draw_t_prime(KEY, SCHEDULE, 0, 0.1) == 3


def test_another_number_of_timesteps():
    """The floor is 0.32 of them; the last is the upper clamp, and where the ODE starts."""
    few = NoiseSchedule(SCHEDULE.alphas_cumprod[::10])
    draw = jax.vmap(lambda key, t: DSD().draw_t_prime(key, few, t), (0, None))
    keys = jax.random.split(KEY, 64)
    assert set(draw(keys, 32).tolist()) == {32}
    assert set(draw(keys, 72).tolist()) == {72, 73, 74, 75}
    assert set(draw(keys, 99).tolist()) == {99}
    assert DSD(ode_points=4).ode_grid(few) == (99, 66, 33, 0)
    assert SDS().ode_grid(SCHEDULE) == DSD().ode_grid(SCHEDULE) == ode.linear_grid()


@pytest.mark.parametrize(
    ("eta_at", "expected"), [(None, (0.0, 0.0, 0.25, 0.5, 0.5)), (0.5, (0.0, 0.0, 0.5, 0.5, 0.5))]
)
def test_eta_grows_as_t_falls(eta_at, expected):
    """In proportion from 0 at t_max, 0.9, to 0.5 at eta_at, or at the run's end, 0.1."""
    method, given = DSD(eta=0.5, eta_at=eta_at), Given(t_range=(0.9, 0.1))
    found = [method.eta_now(SCHEDULE, t, given) for t in (950, 900, 500, 100, 50)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert method.eta_now(SCHEDULE, 500) == 0.5


def test_a_view_may_ask_for_more_fresh_noise():
    method, given = DSD(eta=0.5), Given(t_range=(0.9, 0.1))
    for least, expected in ((0.0, 0.25), (0.1, 0.25), (0.7, 0.7)):
        for kind in (float, jnp.float32):
            found = method.eta_now(SCHEDULE, 500, given._replace(least_eta=kind(least)))
            assert float(found) == pytest.approx(expected, abs=1e-6)


def test_that_share_reaches_the_gradient():
    x, noise = jax.random.normal(KEY, (2, 2, 2, 1))

    def gradient(eta, given):
        method = DSD(eta=eta, anchor="trajectory")
        at = lambda w: lambda x_t, t: jnp.tanh(x_t)  # noqa: E731
        return method.gradient(KEY, at, SCHEDULE, x, noise, 500, given)[0]

    plain = gradient(0.6, Given(t_prime=500))
    asked = gradient(0.0, Given(t_prime=500, least_eta=jnp.float32(0.6)))
    fallen = gradient(1.0, Given(t_prime=500, t_range=(0.8, 0.3)))
    np.testing.assert_allclose(asked, plain, rtol=1e-6)
    np.testing.assert_allclose(fallen, plain, rtol=1e-5)
    assert np.abs(plain - gradient(0.0, Given(t_prime=500))).max() > 0.1
