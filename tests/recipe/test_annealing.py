"""The timestep schedule at points worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.fields.radiance import ramp
from dsd_jax.recipe import annealing
from dsd_jax.recipe.recipe import changed


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


@pytest.mark.parametrize(("kind", "t"), [("sqrt", 640), ("linear", 810)])
def test_the_timestep_of_a_run(recipe, task, kind, t):
    """A quarter of the way from 0.98 to 0.3: 0.64 by the root, 0.81 linearly."""
    run = changed(recipe, annealing=kind)
    assert annealing.run_timestep(10, run, task.prior.schedule) == t
    assert annealing.progress(10, run) == 0.25


def test_ramp_by_hand():
    found = [float(ramp(p / 10, 0.2, 0.6)) for p in (0, 2, 3, 4, 6, 10)]
    np.testing.assert_allclose(found, [0, 0, 0.25, 0.5, 1, 1], atol=1e-6)
    assert [float(ramp(p, 0.0, 0.0)) for p in (0, 0.1)] == [0, 1]
