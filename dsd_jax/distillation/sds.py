"""Score distillation sampling (Poole et al., DreamFusion, arXiv 2209.14988).

Letters as in schedule.py, w being the guidance scale. With fresh noise eps at every call,

    gradient = weight_t (eps_w(z_t, t) - eps),    z_t = alpha_t x + sigma_t eps.
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
    guidance_scale: float = 100.0,
    weight=NoiseSchedule.variance,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """SDS gradient on x ([h, w, c] or [views, h, w, c]), and scalars to log.

    Args:
        key: source of the fresh noise.
        denoiser_at: guidance scale -> denoiser.
        schedule: noise schedule of the prior.
        x: encoded rendering.
        seed_noise: not used; here because all methods share one signature.
        t: timestep, 0 .. T-1, possibly traced.
        guidance_scale: DreamFusion's 100, which SDS needs to find a mode at all.
        weight: (schedule, t) -> scalar; DreamFusion's sigma_t^2.
    """
    del seed_noise
    z_t, eps = noised(key, schedule, x, t)
    grad = weight(schedule, t) * (denoiser_at(guidance_scale)(z_t, t) - eps)
    return result(grad, x)
