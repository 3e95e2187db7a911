"""Noise-free score distillation (Katzir et al., arXiv 2310.17590).

Letters as in schedule.py, w being the guidance scale. SDS without the noise that its gradient
carries: the unconditional prediction is taken apart into noise and a direction delta_D to the
prior's domain, which a prompt for bad pictures reveals:

    gradient = weight_t (delta_D + w (eps_text(z_t, t) - eps_uncond(z_t, t))),
    delta_D = eps_uncond(z_t, t) - eps_negative(z_t, t)    from t = 200 of 1000 on,
              eps_uncond(z_t, t)                           below, where there is little noise,

with z_t = alpha_t x + sigma_t eps. As eps_uncond leads both parts, that is eps_w less eps_negative.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dsd_jax.checks import fractions
from dsd_jax.distillation.base import NOTHING, Given, Method
from dsd_jax.distillation.common import missing, noised, result
from dsd_jax.guidance import DenoiserAt
from dsd_jax.schedule import NoiseSchedule


@dataclass(frozen=True)
class NFSD(Method):
    """Noise-free score distillation: away from bad pictures and towards the text."""

    bad_text: str = (
        "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, "
        "low-resolution, gloomy"
    )
    """What it takes for a bad picture; the paper's."""
    negative_from: float = 0.2
    """t, as a fraction of the prior's timesteps, from which delta_D needs that text."""

    def __post_init__(self):
        super().__post_init__()
        fractions(self, "method", "negative_from")

    @property
    def bad_prompt(self) -> str:
        """`bad_text`, whose prediction is `Given.negative`."""
        return self.bad_text

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
        """NFSD gradient on x, and scalars to log: see `Method.gradient`.

        `key` is the source of the noise; `seed_noise` plays no part. Raises ValueError without
        `given.negative`.
        """
        del seed_noise
        if given.negative is None:
            raise missing(self, "negative", "a denoiser of bad pictures")
        z_t, _ = noised(key, schedule, x, t)
        noisy = jnp.asarray(t) >= self.negative_from * schedule.num_train_timesteps
        away = jnp.where(noisy, given.negative(z_t, t), 0.0)
        grad = self.weight(schedule, t) * (denoiser_at(self.guidance_scale)(z_t, t) - away)
        return result(grad, x)
