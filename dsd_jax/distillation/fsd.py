"""Flow score distillation (Yan et al., arXiv 2405.10988).

Letters as in schedule.py, w being the guidance scale. SDS whose noise is the same at every step, so
that with a falling t the sample follows the ODE of that noise:

    gradient = weight_t (eps_w(z_t, t) - eps),    z_t = alpha_t x + sigma_t eps,

with eps the noise of the view. The paper turns a world map of noise with the camera; here the
caller chooses how the noise of a view comes from the seed (`Settings.view_noise`); with noise that
lies on the surface it is `cfd`.
"""

import chex
import jax
import jax.numpy as jnp

from dsd_jax.distillation.common import result, with_fresh
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
    fresh_share: jax.Array | float = 0.0,
    weight=NoiseSchedule.variance,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """FSD gradient on x ([h, w, c] or [views, h, w, c]), and scalars to log.

    Args:
        key: source of the fresh noise, where `fresh_share` asks for any.
        denoiser_at: guidance scale -> denoiser.
        schedule: noise schedule of the prior.
        x: encoded rendering.
        seed_noise: like x; the noise of the view, eps.
        t: timestep, 0 .. T-1, possibly traced; meant to fall.
        guidance_scale: w.
        fresh_share: f in sqrt(1 - f^2) eps + f N(0, 1); 1 is SDS.
        weight: (schedule, t) -> scalar.
    """
    chex.assert_equal_shape([x, seed_noise])
    x = jax.lax.stop_gradient(x)
    eps = seed_noise.astype(jnp.promote_types(x.dtype, jnp.float32))
    eps = with_fresh(key, eps, fresh_share)
    z_t = schedule.add_noise(x, eps, t)
    grad = weight(schedule, t) * (denoiser_at(guidance_scale)(z_t, t) - eps)
    return result(grad, x)
