"""Noise-free score distillation (Katzir et al., arXiv 2310.17590).

Letters as in schedule.py, w being the guidance scale. SDS without the noise that its gradient
carries: the unconditional prediction is taken apart into noise and a direction delta_D to the
prior's domain, which a prompt for bad pictures reveals:

    gradient = weight_t (delta_D + w (eps_text(z_t, t) - eps_uncond(z_t, t))),
    delta_D = eps_uncond(z_t, t) - eps_negative(z_t, t)    from t = 200 of 1000 on,
              eps_uncond(z_t, t)                           below, where there is little noise,

with z_t = alpha_t x + sigma_t eps. As eps_uncond leads both parts, that is eps_w less eps_negative.
"""

import jax
import jax.numpy as jnp

from dsd_jax.distillation.common import noised, result
from dsd_jax.guidance import DenoiserAt
from dsd_jax.ode import Denoiser
from dsd_jax.schedule import NoiseSchedule


def gradient(
    key: jax.Array,
    denoiser_at: DenoiserAt,
    schedule: NoiseSchedule,
    x: jax.Array,
    seed_noise: jax.Array,
    t: jax.Array | int,
    *,
    negative: Denoiser,
    guidance_scale: float = 7.5,
    negative_from: float = 0.2,
    weight=NoiseSchedule.variance,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """NFSD gradient on x ([h, w, c] or [views, h, w, c]), and scalars to log.

    Args:
        key: source of the fresh noise eps.
        denoiser_at: guidance scale -> denoiser.
        schedule: noise schedule of the prior.
        x: encoded rendering.
        seed_noise: not used; here because all methods share one signature.
        t: timestep, 0 .. T-1, possibly traced.
        negative: denoiser of a prompt for bad pictures, `Settings.nfsd_prompt`.
        guidance_scale: w.
        negative_from: t, as a fraction of T, from which delta_D needs that prompt.
        weight: (schedule, t) -> scalar.
    """
    del seed_noise
    z_t, _ = noised(key, schedule, x, t)
    noisy = jnp.asarray(t) >= negative_from * schedule.num_train_timesteps
    away = jnp.where(noisy, negative(z_t, t), 0.0)
    grad = weight(schedule, t) * (denoiser_at(guidance_scale)(z_t, t) - away)
    return result(grad, x)
