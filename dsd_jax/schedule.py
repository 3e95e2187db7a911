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

MAX_TIMESTEPS = 100_000
# Diffusers' schedulers of the process x_t = alpha x0 + sigma eps, whose alpha follows from betas.
_SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)

# Where a sampler's timesteps lie; none of it changes the process.
_SPACINGS = ("leading", "linspace", "trailing")

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
            ValueError: the file asks for something that is not supported, or makes no sense.
        """
        _check_kind(config)
        prediction_type = config.get("prediction_type", "epsilon")
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type {prediction_type!r:.80} of the scheduler config is not one of "
                f"{', '.join(PREDICTION_TYPES)}"
            )
        if config.get("rescale_betas_zero_snr"):
            raise ValueError(
                "rescale_betas_zero_snr is not supported: with abar = 0 the eps form of the ODE "
                "has no start; use weights of a model trained without it"
            )
        abar = np.cumprod(1.0 - _betas(config)).astype(np.float32)
        if not abar[-1] > 0 or abar[0] == 1:
            raise ValueError(
                f"the betas of the scheduler config make abar run from {abar[0]:g} to "
                f"{abar[-1]:g}; it has to start below 1 and to end above 0"
            )
        return cls(jnp.asarray(abar), prediction_type)

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


def _check_kind(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a scheduler whose forward process is another than that of its betas.

    And for entries that no scheduler has so.
    """
    name = config.get("_class_name", _SCHEDULERS[0])
    if not isinstance(name, str) or name.removeprefix("Flax") not in _SCHEDULERS:
        raise ValueError(
            f"_class_name {name!r:.80} of the scheduler config is not supported: schedulers of "
            f"DDIM's kind are (flow matching is not): {', '.join(_SCHEDULERS[:3])} ..."
        )
    offset, spacing = config.get("steps_offset", 0), config.get("timestep_spacing", "leading")
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < MAX_TIMESTEPS:
        raise ValueError(
            f"steps_offset of the scheduler config needs a whole number from 0 on and below "
            f"{MAX_TIMESTEPS}, got {offset!r:.80}"
        )
    if spacing not in _SPACINGS:
        raise ValueError(
            f"timestep_spacing {spacing!r:.80} of the scheduler config is not one of "
            f"{', '.join(_SPACINGS)}"
        )
    for entry, value in (("use_flow_sigmas", False), ("timestep_type", "discrete")):
        if config.get(entry, value) != value:
            raise ValueError(
                f"{entry} = {config[entry]!r:.80} of the scheduler config is not supported, "
                f"only {value!r}"
            )


def _betas(config: Mapping[str, Any]) -> np.ndarray:
    """Variances added per step, float64 [T]; diffusers' three rules."""
    if config.get("trained_betas") is not None:
        return _trained_betas(config["trained_betas"])
    kind = config.get("beta_schedule", "linear")
    steps = config.get("num_train_timesteps", 1000)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 2 <= steps <= MAX_TIMESTEPS:
        raise ValueError(
            f"num_train_timesteps of the scheduler config needs a whole number from 2 to "
            f"{MAX_TIMESTEPS}, got {steps!r:.80}"
        )
    start, end = (
        _beta(config.get(name, usual), name)
        for name, usual in (("beta_start", 1e-4), ("beta_end", 0.02))
    )
    if start > end:
        raise ValueError(f"beta_start {start} of the scheduler config is above beta_end {end}")
    if kind == "linear":
        return np.linspace(start, end, steps)
    if kind == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, steps) ** 2
    if kind == "squaredcos_cap_v2":
        abar = np.cos((np.linspace(0, 1, steps + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - abar[1:] / abar[:-1], 0.999)
    raise ValueError(
        f"beta_schedule {kind!r:.80} of the scheduler config is not one of "
        "linear, scaled_linear, squaredcos_cap_v2"
    )


def _trained_betas(betas: Any) -> np.ndarray:
    """The list `trained_betas` as an array."""
    if not isinstance(betas, list | tuple) or not 2 <= len(betas) <= MAX_TIMESTEPS:
        raise ValueError(
            f"trained_betas of the scheduler config needs a list of 2 to {MAX_TIMESTEPS} numbers, "
            f"got {betas!r:.80}"
        )
    return np.asarray([_beta(beta, "trained_betas") for beta in betas], np.float64)


def _beta(value: Any, name: str) -> float:
    """A variance. Raises ValueError for what is no number between 0 and 1."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < 1:
        raise ValueError(
            f"{name} of the scheduler config needs a number between 0 and 1, got {value!r:.80}"
        )
    return value
