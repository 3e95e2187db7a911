"""A prior that is known exactly, small enough to optimise against in a test."""

import jax.numpy as jnp
import pytest

from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.priors.gaussian import GaussianMixture, GaussianPrior
from dsd_jax.schedule import NoiseSchedule

SIZE = 4


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(quick_compilation):
    """All tests of this folder."""


@pytest.fixture(scope="session")
def red_and_blue() -> GaussianPrior:
    """Flat colours by name, 4 x 4, with one wide mode each, so that each seed has a picture."""
    colours = jnp.array([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]])[:, None, None]
    mean = jnp.broadcast_to(colours, (2, SIZE, SIZE, 3))
    mixture = GaussianMixture(jnp.zeros(2), mean, jnp.full_like(mean, 0.3))
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)
    return GaussianPrior(mixture, schedule, ("red", "blue"))
