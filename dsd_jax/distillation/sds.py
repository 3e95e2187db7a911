"""Score distillation sampling (Poole et al., DreamFusion, arXiv 2209.14988).

Letters as in schedule.py, w being the guidance scale. With fresh noise eps at every call,

    gradient = weight_t (eps_w(z_t, t) - eps),    z_t = alpha_t x + sigma_t eps.
"""

from dataclasses import dataclass

import jax

from dsd_jax.distillation.base import NOTHING, Given, Method
from dsd_jax.distillation.common import noised, result
from dsd_jax.guidance import DenoiserAt
from dsd_jax.schedule import NoiseSchedule


@dataclass(frozen=True)
class SDS(Method):
    """Score distillation sampling: what the prior predicts, less the noise that was added."""

    guidance_scale: float = 100.0
    """Guidance of the prediction at t: DreamFusion's 100, which SDS needs to find a mode at all."""

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
        """SDS gradient on x, and scalars to log: see `Method.gradient`.

        `key` is the source of the noise; `seed_noise` and `given` play no part.
        """
        del seed_noise, given
        z_t, eps = noised(key, schedule, x, t)
        grad = self.weight(schedule, t) * (denoiser_at(self.guidance_scale)(z_t, t) - eps)
        return result(grad, x)
