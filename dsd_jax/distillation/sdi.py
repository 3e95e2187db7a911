"""Score distillation via inversion (Lukoianov et al., arXiv 2405.15891).

Letters as in schedule.py, w being the guidance scale. SDS with the noise that the ODE itself would
have at x, found by inverting x with guidance -w:

    kappa = (x_t - alpha_t x) / sigma_t,    gradient = weight_t (eps_w(z_t, t) - kappa),
    z_t = alpha_t x + sigma_t kappa.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dsd_jax.checks import at_least, fractions
from dsd_jax.distillation.base import NOTHING, Given, Method
from dsd_jax.distillation.common import result, with_fresh
from dsd_jax.distillation.inversion import invert
from dsd_jax.guidance import DenoiserAt
from dsd_jax.schedule import NoiseSchedule


@dataclass(frozen=True)
class SDI(Method):
    """Score distillation via inversion: SDS with the noise of the ODE. The paper weighs by s_t."""

    guidance_scale: float = 7.5
    """w; the inversion is guided by -w."""
    inversion_steps: int = 10
    """Evaluations of the way from x to x_t."""
    inversion_eta: float = 0.3
    """Share of fresh noise in kappa, sqrt(1 - eta^2) kappa + eta N(0, 1)."""

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "method", 1, "inversion_steps")
        fractions(self, "method", "inversion_eta")

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
        """SDI gradient on x, and scalars to log: see `Method.gradient`.

        `key` is the source of the fresh noise; `seed_noise` and `given` play no part.
        """
        del seed_noise, given
        x = jax.lax.stop_gradient(x).astype(jnp.promote_types(x.dtype, jnp.float32))
        x_t = invert(denoiser_at(-self.guidance_scale), schedule, x, t, self.inversion_steps)
        kappa = (x_t - schedule.alpha(t) * x) / schedule.sigma(t)
        kappa = with_fresh(key, kappa, self.inversion_eta)
        z_t = schedule.add_noise(x, kappa, t)
        grad = self.weight(schedule, t) * (denoiser_at(self.guidance_scale)(z_t, t) - kappa)
        return result(grad, x)
