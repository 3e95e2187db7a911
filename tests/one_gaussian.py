"""A Gaussian prior in the plane, a sample and a noise, for closed forms of the methods."""

import jax
import jax.numpy as jnp

from dsd_jax.priors.gaussian import GaussianMixture
from dsd_jax.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.from_config(
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
)
KEY = jax.random.key(3)
MEAN, VARIANCE = jnp.array([2.0, -1.0]), jnp.array([0.3, 0.5])
PRIOR = GaussianMixture(jnp.zeros(1), MEAN[None], VARIANCE[None])
X, NOISE = jnp.array([0.5, 0.7]), jnp.array([1.1, -0.4])
T = 600


def unweighted(kind, **numbers):
    """The method of a class and its numbers, with a weight of 1 at every t."""
    own = type(kind.__name__, (kind,), {"weight": lambda self, schedule, t: 1.0})
    return own(**numbers)
