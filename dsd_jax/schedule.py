"""The noise schedule of a diffusion model.

Letters, here and in the rest of the core:
    t        integer timestep 0 .. T-1, possibly traced; t = CLEAN = -1 is the clean sample
    abar     alphas_cumprod[t]
    alpha    sqrt(abar), sigma = sqrt(1 - abar), s = sigma / alpha
    x0, eps  clean sample and unit Gaussian noise:  x_t = alpha x0 + sigma eps
A t of shape [n] goes with samples of shape [n, ...]: coefficients broadcast from the left.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

CLEAN = -1

Timestep: TypeAlias = Int[Array, "*n"] | int

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def left_aligned(coefficient: jax.Array, x: jax.Array) -> jax.Array:
    """`coefficient` [*n] with trailing axes of length 1, to broadcast against x [*n, ...]."""
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim))


@struct.dataclass
class NoiseSchedule:
    """A variance-preserving forward process, and what the network was trained to predict.

    Attributes:
        alphas_cumprod: [T] abar, falling from nearly 1 to nearly 0.
        prediction_type: "epsilon", "v_prediction" or "sample" (static under jit).
    """

    alphas_cumprod: Float[Array, " T"]
    prediction_type: str = struct.field(pytree_node=False, default="epsilon")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
        """Schedule of a diffusers `scheduler_config.json`; absent keys take diffusers' defaults.

        Raises:
            ValueError: the file asks for something that is not supported.
        """
        prediction_type = config.get("prediction_type", "epsilon")
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type {prediction_type!r} of the scheduler config is not one of "
                f"{', '.join(PREDICTION_TYPES)}"
            )
        if config.get("rescale_betas_zero_snr"):
            raise ValueError(
                "rescale_betas_zero_snr is not supported: with abar = 0 the eps form of the ODE "
                "has no start; use weights of a model trained without it"
            )
        abar = np.cumprod(1.0 - _betas(config))
        return cls(jnp.asarray(abar, jnp.float32), prediction_type)

    @property
    def num_train_timesteps(self) -> int:
        return self.alphas_cumprod.shape[0]

    @property
    def last(self) -> int:
        """The last and noisiest timestep, T - 1."""
        return self.num_train_timesteps - 1

    def alpha(self, t: Timestep) -> jax.Array:
        """Scale of the clean sample at t, [*n] like t; 1 at CLEAN."""
        return jnp.sqrt(self._abar(t))

    def sigma(self, t: Timestep) -> jax.Array:
        """Scale of the noise at t, [*n]; 0 at CLEAN."""
        return jnp.sqrt(self.variance(t))

    def variance(self, t: Timestep) -> jax.Array:
        """sigma^2 = 1 - abar at t, [*n]; 0 at CLEAN."""
        return 1.0 - self._abar(t)

    def s(self, t: Timestep) -> jax.Array:
        """sigma / alpha, [*n]: the ODE's own time, d(x_t / alpha) = eps ds; 0 at CLEAN."""
        return self.sigma(t) / self.alpha(t)

    def add_noise(self, x0: jax.Array, eps: jax.Array, t: Timestep) -> jax.Array:
        """x_t = alpha x0 + sigma eps, for x0 and eps of one shape [*n, ...]."""
        return left_aligned(self.alpha(t), x0) * x0 + left_aligned(self.sigma(t), eps) * eps

    def to_eps(self, prediction: jax.Array, x_t: jax.Array, t: Timestep) -> jax.Array:
        """The noise that a network's `prediction` at x_t implies, both [*n, ...].

        v = alpha eps - sigma x0 (Salimans and Ho 2022, arXiv 2202.00512, appendix D).
        """
        alpha, sigma = left_aligned(self.alpha(t), x_t), left_aligned(self.sigma(t), x_t)
        if self.prediction_type == "v_prediction":
            return alpha * prediction + sigma * x_t
        if self.prediction_type == "sample":
            return (x_t - alpha * prediction) / sigma
        return prediction

    def _abar(self, t):
        t = jnp.asarray(t)
        return jnp.where(t < 0, 1.0, self.alphas_cumprod[jnp.maximum(t, 0)])


def _betas(config: Mapping[str, Any]) -> np.ndarray:
    """Variances added per step, float64 [T]; diffusers' three rules."""
    kind = config.get("beta_schedule", "linear")
    steps = int(config.get("num_train_timesteps", 1000))
    start, end = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    if config.get("trained_betas") is not None:
        return np.asarray(config["trained_betas"], np.float64)
    if kind == "linear":
        return np.linspace(start, end, steps)
    if kind == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, steps) ** 2
    if kind == "squaredcos_cap_v2":
        abar = np.cos((np.linspace(0, 1, steps + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - abar[1:] / abar[:-1], 0.999)
    raise ValueError(
        f"beta_schedule {kind!r} of the scheduler config is not one of "
        "linear, scaled_linear, squaredcos_cap_v2"
    )
