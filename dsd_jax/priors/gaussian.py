"""A prior that is known exactly: a mixture of Gaussians with diagonal covariance.

Letters as in schedule.py, and pi_k, mu_k, v_k: weight, mean and variance of component k. Then
x_t is a mixture too, of N(alpha mu_k, alpha^2 v_k + sigma^2), and the optimal noise prediction is

    eps(x_t, t) = sigma sum_k r_k(x_t) (x_t - alpha mu_k) / (alpha^2 v_k + sigma^2),

r_k being the posterior probability of component k. Good for tests and for pictures in 2D.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsd_jax.guidance import DenoiserAt, Network, classifier_free
from dsd_jax.schedule import NoiseSchedule, left_aligned


class GaussianMixture(NamedTuple):
    """x_0 ~ sum_k pi_k N(mean_k, diag variance_k), over events of any shape.

    Attributes:
        log_weights: [k] logarithms of pi, which need not be normalised.
        mean: [k, ...]
        variance: [k, ...], positive.
    """

    log_weights: Float[Array, " k"]
    mean: Float[Array, " k ..."]
    variance: Float[Array, " k ..."]

    def only(self, *components: int) -> Float[Array, " k"]:
        """Conditioning that selects these components: log weights, -inf elsewhere."""
        chosen = jnp.isin(jnp.arange(self.log_weights.shape[0]), jnp.array(components))
        return jnp.where(chosen, self.log_weights, -jnp.inf)

    def eps(self, schedule: NoiseSchedule, x_t: jax.Array, t, log_weights=None) -> jax.Array:
        """Optimal noise prediction [...] at x_t [...], under other log weights [k] where given."""
        log_weights = self.log_weights if log_weights is None else log_weights
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = alpha**2 * self.variance + sigma**2
        offset = x_t - alpha * self.mean
        log_density = -0.5 * (offset**2 / variance + jnp.log(variance))
        axes = tuple(range(1, log_density.ndim))
        posterior = jax.nn.softmax(log_weights + jnp.sum(log_density, axes))
        return sigma * jnp.sum(left_aligned(posterior, offset) * offset / variance, 0)

    def network(self, schedule: NoiseSchedule) -> Network:
        """The batched network for guidance.py; its conditioning is log weights [n, k]."""
        return jax.vmap(lambda x_t, t, log_weights: self.eps(schedule, x_t, t, log_weights))

    def init_adapter(self, key: jax.Array) -> Float[Array, "..."]:
        """Weights of the simplest adapter: a shift of all means, 0 as yet; `key` is not used."""
        del key
        return jnp.zeros(self.mean.shape[1:])

    def adapt(self, shift: Float[Array, "..."] | float) -> "GaussianMixture":
        """The mixture with an adapter's weights in it."""
        return self._replace(mean=self.mean + shift)

    def denoiser_at(self, schedule: NoiseSchedule, text: Float[Array, " k"]) -> DenoiserAt:
        """Guidance towards the conditioning `text`, for instance `only(2)`."""
        return classifier_free(self.network(schedule), text, self.log_weights)


def ode_solution(mean, variance, schedule: NoiseSchedule, x_T: jax.Array, T, t) -> jax.Array:
    """Exact x_t [...] on the probability-flow ODE through x_T [...] at T, for one Gaussian.

    The distance to the mean keeps its quantile:  x_t - alpha_t mean  scales with the standard
    deviation sqrt(alpha_t^2 variance + sigma_t^2). t may be CLEAN.
    """

    def deviation(t):
        return jnp.sqrt(schedule.alpha(t) ** 2 * variance + schedule.variance(t))

    distance = (x_T - schedule.alpha(T) * mean) / deviation(T)
    return schedule.alpha(t) * mean + deviation(t) * distance
