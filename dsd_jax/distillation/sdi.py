"""Score distillation via inversion (Lukoianov et al., arXiv 2405.15891).

Letters as in schedule.py, w being the guidance scale. SDS with the noise that the ODE itself would
have at x, found by inverting x with guidance -w:

    kappa = (x_t - alpha_t x) / sigma_t,    gradient = weight_t (eps_w(z_t, t) - kappa),
    z_t = alpha_t x + sigma_t kappa.
"""

import jax
import jax.numpy as jnp

from dsd_jax.distillation.common import result, with_fresh
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
    inversion_steps: int = 10,
    inversion_eta: float = 0.3,
    weight=NoiseSchedule.variance,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """SDI gradient on x ([h, w, c] or [views, h, w, c]), and scalars to log.

    Args:
        key: source of the fresh noise in kappa.
        denoiser_at: guidance scale -> denoiser.
        schedule: noise schedule of the prior.
        x: encoded rendering.
        seed_noise: not used; here because all methods share one signature.
        t: timestep, 0 .. T-1, possibly traced.
        guidance_scale: w; the inversion is guided by -w.
        inversion_steps: evaluations of the way from x to x_t.
        inversion_eta: share of fresh noise in kappa, sqrt(1 - eta^2) kappa + eta N(0, 1).
        weight: (schedule, t) -> scalar; the paper's is `NoiseSchedule.s`.
    """
    del seed_noise
    x = jax.lax.stop_gradient(x).astype(jnp.promote_types(x.dtype, jnp.float32))
    x_t = invert(denoiser_at(-guidance_scale), schedule, x, t, inversion_steps)
    kappa = (x_t - schedule.alpha(t) * x) / schedule.sigma(t)
    kappa = with_fresh(key, kappa, inversion_eta)
    z_t = schedule.add_noise(x, kappa, t)
    grad = weight(schedule, t) * (denoiser_at(guidance_scale)(z_t, t) - kappa)
    return result(grad, x)
