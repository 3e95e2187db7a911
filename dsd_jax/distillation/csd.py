"""Classifier score distillation (Yu et al., arXiv 2310.19415).

Letters as in schedule.py. What guidance adds to SDS is the whole of it:

    gradient = weight_t w (eps_text(z_t, t) - eps_uncond(z_t, t)),    z_t = alpha_t x + sigma_t eps.
"""

import jax

from dsd_jax.distillation.common import noised, result
from dsd_jax.guidance import DenoiserAt
from dsd_jax.schedule import NoiseSchedule


def gradient(
    key: jax.Array,
    denoiser_at: DenoiserAt,
    schedule: NoiseSchedule,
    x: jax.Array,
    seed_noise: jax.Array,
    t: jax.Array | int,
    *,
    guidance_scale: float = 1.0,
    weight=NoiseSchedule.variance,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """CSD gradient on x ([h, w, c] or [views, h, w, c]), and scalars to log.

    Args:
        key: source of the fresh noise eps.
        denoiser_at: guidance scale -> denoiser.
        schedule: noise schedule of the prior.
        x: encoded rendering.
        seed_noise: not used; here because all methods share one signature.
        t: timestep, 0 .. T-1, possibly traced.
        guidance_scale: w, which scales the gradient and changes nothing for Adam.
        weight: (schedule, t) -> scalar.
    """
    del seed_noise
    z_t, _ = noised(key, schedule, x, t)
    classifier = denoiser_at(1.0)(z_t, t) - denoiser_at(0.0)(z_t, t)
    grad = weight(schedule, t) * guidance_scale * classifier
    return result(grad, x)
