"""The timestep schedule at points worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.recipe import annealing


@pytest.mark.parametrize(
    ("step", "linear", "expected"),
    [
        (0, False, 0.98),
        (2500, False, 0.65),  # half way, sqrt(1/4)
        (5625, False, 0.485),  # 0.66 * 0.25 + 0.32
        (10000, False, 0.32),
        (12000, False, 0.32),  # past the end it stays
        (2500, True, 0.815),
        (10000, True, 0.32),
    ],
)
def test_t_fraction(step, linear, expected):
    fraction = annealing.t_fraction(step, 10_000, linear=linear)
    np.testing.assert_allclose(fraction, expected, rtol=1e-6)


def test_timestep_is_an_integer_within_range():
    steps = jnp.arange(101)
    t = jax.jit(jax.vmap(lambda step: annealing.timestep(step, 100)))(steps)
    assert t.dtype == jnp.int32
    assert (t[0], t[25], t[100]) == (980, 650, 320)
    assert (jnp.diff(t) <= 0).all()
    full = jax.vmap(lambda step: annealing.timestep(step, 100, 1.0, 0.0))(steps)
    assert (full[0], full[100]) == (999, 0)


def test_other_numbers_of_timesteps():
    assert annealing.timestep(0, 10, num_train_timesteps=100) == 98


def test_the_lower_clamp_of_t_prime_rises_late():
    clamp = jax.jit(lambda step: annealing.t_prime_min(step, 10_000))
    assert [int(clamp(step)) for step in (0, 5624, 5626, 10_000)] == [1, 1, 10, 10]
