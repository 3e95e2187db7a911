"""Interval score matching (Liang et al., LucidDreamer, arXiv 2311.11284).

Letters as in schedule.py, w being the guidance scale, and s = t - interval. The noise is not drawn
but found: x is inverted without text to x_s, and one more step leads to x_t:

    gradient = weight_t (eps_w(x_t, t) - eps_uncond(x_s, s)).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dsd_jax import ode
from dsd_jax.checks import at_least
from dsd_jax.distillation.base import NOTHING, Given, Method
from dsd_jax.distillation.common import result
from dsd_jax.distillation.inversion import invert
from dsd_jax.guidance import DenoiserAt
from dsd_jax.schedule import NoiseSchedule


@dataclass(frozen=True)
class ISM(Method):
    """Interval score matching: two points of the inverted ODE of x."""

    interval: int = 50
    """Timesteps between s and t, the paper's delta_T."""
    inversion_steps: int = 5
    """Evaluations of the way from x to x_s; the paper walks in steps of 200."""

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "method", 0, "interval")
        at_least(self, "method", 1, "inversion_steps")

    def gradient(
        self,
        key: jax.Array,
        denoiser_at: DenoiserAt,
        schedule: NoiseSchedule,
        x: jax.Array,
        seed_noise: jax.Array,
        t: jax.Array | int,
        given: Given = NOTHING,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """ISM gradient on x, and scalars to log: see `Method.gradient`.

        As the noise is found by inversion, `key`, `seed_noise` and `given` play no part.
        """
        del key, seed_noise, given
        x = jax.lax.stop_gradient(x).astype(jnp.promote_types(x.dtype, jnp.float32))
        s = jnp.maximum(jnp.asarray(t) - self.interval, 0)
        uncond = denoiser_at(0.0)
        x_s = invert(uncond, schedule, x, s, self.inversion_steps)
        eps_s = uncond(x_s, s)
        x_t = ode.ddim_step(schedule, x_s, eps_s, s, t)
        grad = self.weight(schedule, t) * (denoiser_at(self.guidance_scale)(x_t, t) - eps_s)
        return result(grad, x)
