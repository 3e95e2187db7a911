"""A prior that is known exactly: a mixture of Gaussians with diagonal covariance.

Letters as in schedule.py, and pi_k, mu_k, v_k: weight, mean and variance of component k. Then
x_t is a mixture too, of N(alpha mu_k, alpha^2 v_k + sigma^2), and the optimal noise prediction is

    eps(x_t, t) = sigma sum_k r_k(x_t) (x_t - alpha mu_k) / (alpha^2 v_k + sigma^2),

r_k being the posterior probability of component k. Good for tests and for pictures in 2D; in the
form of `GaussianPrior`, for whatever takes a prior.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from dsd_jax.guidance import DenoiserAt, Network, classifier_free
from dsd_jax.priors.base import Defaults, Distinction, Viewpoint
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


@struct.dataclass
class GaussianPrior(Defaults):
    """A prior of pictures, known exactly: prompts name its components, and no view is special.

    Attributes:
        params: the mixture, of pictures in [-1, 1]; its mean is [k, h, w, 3].
        schedule: noise schedule.
        names: k of them, what a prompt calls each component.
    """

    params: GaussianMixture
    schedule: NoiseSchedule
    names: tuple[str, ...] = struct.field(pytree_node=False)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, 3) of a latent."""
        _, h, w, c = self.params.mean.shape
        return h, w, c

    @property
    def image_size(self) -> int:
        """h, pixels."""
        return self.latent_shape[0]

    def encode(self, params, image: Float[Array, "H W 3"]) -> Float[Array, "h w 3"]:
        """The image, resized bilinearly, from [0, 1] to [-1, 1]."""
        return 2 * jax.image.resize(image, self.latent_shape, "bilinear") - 1

    def decode(self, params, x: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
        """From [-1, 1] to [0, 1], not clipped."""
        return (x + 1) / 2

    def condition(self, told, *, negative_prompt="", view_prompts="perp-neg") -> Float[Array, " k"]:
        """Log weights of the components that a prompt names, word by word; of all if it names none.

        Guidance leads away from the whole mixture, whatever `negative_prompt` says.
        Raises ValueError for a picture.
        """
        if not isinstance(told, str):
            raise ValueError("the Gaussian prior takes a prompt and not a picture")
        names = [rf"\b{re.escape(name)}\b" for name in self.names]
        named = [i for i, name in enumerate(names) if re.search(name, told, re.IGNORECASE)]
        return self.params.only(*named) if named else self.params.log_weights

    def denoiser_at(self, params, condition: Float[Array, " k"], viewpoints: Viewpoint):
        """Guidance scale -> denoiser of [h, w, 3], the same for every viewpoint."""
        return params.denoiser_at(self.schedule, condition)

    def tells_apart(self, condition) -> Distinction:
        """Nothing."""
        return "nothing"

    def init_adapter(self, key: jax.Array, params, rank: int) -> Float[Array, "h w 3"]:
        """A shift of all means, 0 as yet."""
        return params.init_adapter(key)

    def adapt(self, params, adapter: Float[Array, "h w 3"]) -> GaussianMixture:
        """The mixture shifted."""
        return params.adapt(adapter)
