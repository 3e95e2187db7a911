"""Interval score matching (Liang et al., LucidDreamer, arXiv 2311.11284).

Letters as in schedule.py, w being the guidance scale, and s = t - interval. The noise is not drawn
but found: x is inverted without text to x_s, and one more step leads to x_t:

    gradient = weight_t (eps_w(x_t, t) - eps_uncond(x_s, s)).
"""

import jax
import jax.numpy as jnp

from dsd_jax import ode
from dsd_jax.distillation.common import result
from dsd_jax.distillation.inversion import invert
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
    guidance_scale: float = 7.5,
    interval: int = 50,
    inversion_steps: int = 5,
    weight=NoiseSchedule.variance,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """ISM gradient on x ([h, w, c] or [views, h, w, c]), and scalars to log.

    Args:
        key: not used, as the noise is found by inversion.
        denoiser_at: guidance scale -> denoiser.
        schedule: noise schedule of the prior.
        x: encoded rendering.
        seed_noise: not used; here because all methods share one signature.
        t: timestep, 0 .. T-1, possibly traced.
        guidance_scale: w, of the prediction at t.
        interval: timesteps between s and t, the paper's delta_T.
        inversion_steps: evaluations of the way from x to x_s; the paper walks in steps of 200.
        weight: (schedule, t) -> scalar.
    """
    del key, seed_noise
    x = jax.lax.stop_gradient(x).astype(jnp.promote_types(x.dtype, jnp.float32))
    s = jnp.maximum(jnp.asarray(t) - interval, 0)
    uncond = denoiser_at(0.0)
    x_s = invert(uncond, schedule, x, s, inversion_steps)
    eps_s = uncond(x_s, s)
    x_t = ode.ddim_step(schedule, x_s, eps_s, s, t)
    grad = weight(schedule, t) * (denoiser_at(guidance_scale)(x_t, t) - eps_s)
    return result(grad, x)
