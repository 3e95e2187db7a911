"""Flow score distillation (Yan et al., arXiv 2405.10988).

Letters as in schedule.py, w being the guidance scale. SDS whose noise is the same at every step, so
that with a falling t the sample follows the ODE of that noise:

    gradient = weight_t (eps_w(z_t, t) - eps),    z_t = alpha_t x + sigma_t eps,

with eps the noise of the view. The paper turns a world map of noise with the camera; here
`Method.view_noise`, or the recipe, says how the noise of a view comes from the seed; with noise
that lies on the surface it is `cfd`.
"""

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from dsd_jax.checks import fractions
from dsd_jax.distillation.base import NOTHING, Given, Method
from dsd_jax.distillation.common import result, with_fresh
from dsd_jax.guidance import DenoiserAt
from dsd_jax.schedule import NoiseSchedule


@dataclass(frozen=True)
class FSD(Method):
    """Flow score distillation: SDS with the noise of the view; t is meant to fall."""

    fresh_share: float = 0.0
    """Share f of fresh noise in the view's, sqrt(1 - f^2) eps + f N(0, 1); 1 is SDS."""

    def __post_init__(self):
        super().__post_init__()
        fractions(self, "method", "fresh_share")

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
        """FSD gradient on x, and scalars to log: see `Method.gradient`.

        `seed_noise` is that of the view, eps; `key` the source of the fresh noise; `given` plays no
        part.
        """
        del given
        chex.assert_equal_shape([x, seed_noise])
        x = jax.lax.stop_gradient(x)
        eps = seed_noise.astype(jnp.promote_types(x.dtype, jnp.float32))
        eps = with_fresh(key, eps, self.fresh_share)
        z_t = schedule.add_noise(x, eps, t)
        grad = self.weight(schedule, t) * (denoiser_at(self.guidance_scale)(z_t, t) - eps)
        return result(grad, x)
