"""Consistent flow distillation (Yan et al., arXiv 2501.05445).

Letters as in schedule.py, w being the guidance scale. The gradient of FSD,

    weight_t (eps_w(z_t, t) - eps),    z_t = alpha_t x + sigma_t eps,

with a noise eps that is consistent over views: unit Gaussian noise that lies on the object's
surface, so that the ODEs of all views carry the same noise to the same place
(`rendering.surface_noise`; that is this method's `view_noise`). A share of fresh noise turns
the ODE into an SDE. The authors mix in none (their `sqrt_beta` is 1); their SDE has the noise of
the surface itself change, by 2e-4 of its variance a step at the most, which is left out here.
"""

import jax

from dsd_jax.distillation import fsd
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
    guidance_scale: float = 50.0,
    fresh_share: jax.Array | float = 0.0,
    weight=NoiseSchedule.variance,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """CFD gradient on x ([h, w, c] or [views, h, w, c]), and scalars to log.

    Args:
        seed_noise: like x; the noise of the view's surface, eps.
        guidance_scale: w; the authors' 50 is for MVDream (75 for Stable Diffusion, 7 in 2D).
        key, denoiser_at, schedule, x, t, fresh_share, weight: as in `fsd.gradient`.
    """
    return fsd.gradient(
        key, denoiser_at, schedule, x, seed_noise, t,
        guidance_scale=guidance_scale, fresh_share=fresh_share, weight=weight,
    )  # fmt: skip
