"""Classifier score distillation (Yu et al., arXiv 2310.19415).

Letters as in schedule.py. What guidance adds to SDS is the whole of it:

    gradient = weight_t w (eps_text(z_t, t) - eps_uncond(z_t, t)),    z_t = alpha_t x + sigma_t eps.
"""

from dataclasses import dataclass

import jax

from dsd_jax.distillation.base import NOTHING, Given, Method
from dsd_jax.distillation.common import noised, result
from dsd_jax.guidance import DenoiserAt
from dsd_jax.schedule import NoiseSchedule


@dataclass(frozen=True)
class CSD(Method):
    """Classifier score distillation: what the text adds to the prediction."""

    guidance_scale: float = 1.0
    """w, which scales the gradient and changes nothing for Adam."""

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
        """CSD gradient on x, and scalars to log: see `Method.gradient`.

        `key` is the source of the noise; `seed_noise` and `given` play no part.
        """
        del seed_noise, given
        z_t, _ = noised(key, schedule, x, t)
        classifier = denoiser_at(1.0)(z_t, t) - denoiser_at(0.0)(z_t, t)
        grad = self.weight(schedule, t) * self.guidance_scale * classifier
        return result(grad, x)
