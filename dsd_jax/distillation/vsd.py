"""Variational score distillation (Wang et al., ProlificDreamer, arXiv 2305.16213).

Letters as in schedule.py, w being the guidance scale, and eps_lora the prediction of the prior's
adapted copy, which learns to denoise what this seed renders:

    gradient = weight_t (eps_w(z_t, t) - eps_lora(z_t, t)),    z_t = alpha_t x + sigma_t eps,

and one step of Adam on E |eps_lora(z_t, t) - eps|^2 after every step of the sample. Where the
renderings are distributed as the prior's own samples the two predictions agree, and at w = 1 the
gradient is zero. One seed here is one particle.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dsd_jax.distillation import learned as training
from dsd_jax.distillation.common import noised, result
from dsd_jax.guidance import DenoiserAt
from dsd_jax.schedule import NoiseSchedule

init = training.init


def gradient(
    key: jax.Array,
    denoiser_at: DenoiserAt,
    schedule: NoiseSchedule,
    x: jax.Array,
    seed_noise: jax.Array,
    t: jax.Array | int,
    *,
    learned: DenoiserAt,
    guidance_scale: float = 7.5,
    weight=NoiseSchedule.variance,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """VSD gradient on x ([h, w, c] or [views, h, w, c]), and scalars to log.

    Args:
        key: source of the fresh noise eps.
        denoiser_at: guidance scale -> denoiser.
        schedule: noise schedule of the prior.
        x: encoded rendering.
        seed_noise: not used; here because all methods share one signature.
        t: timestep, 0 .. T-1, possibly traced.
        learned: guidance scale -> denoiser of the adapted network; asked for at 1.
        guidance_scale: w of the prior.
        weight: (schedule, t) -> scalar.
    """
    del seed_noise
    z_t, _ = noised(key, schedule, x, t)
    grad = weight(schedule, t) * (denoiser_at(guidance_scale)(z_t, t) - learned(1.0)(z_t, t))
    return result(grad, x)


def update(
    key: jax.Array,
    state: training.Learned,
    learned_at: Callable[[Any], DenoiserAt],
    schedule: NoiseSchedule,
    x: jax.Array,
    t: jax.Array | int,
    *,
    lora_rate: float = 1e-3,
) -> tuple[training.Learned, dict[str, jax.Array]]:
    """One step of the adapted network's training on x, and scalars to log.

    Args:
        key: source of the timestep and the noise that it trains at.
        state: of `init`.
        learned_at: weights -> guidance scale -> denoiser.
        schedule: noise schedule of the prior.
        x: encoded rendering, [h, w, c] or [views, h, w, c].
        t: timestep of the sample's step; not used, as in the paper.
        lora_rate: Adam's learning rate. The paper's is 1e-4, for runs of 25,000 steps.
    """
    del t
    z_t, eps, t_trained = training.at_random_t(key, schedule, x)

    def loss(weights):
        return jnp.mean(jnp.square(learned_at(weights)(1.0)(z_t, t_trained) - eps))

    return training.descend(state, loss, lora_rate)
