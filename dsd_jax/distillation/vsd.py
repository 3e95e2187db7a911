"""Variational score distillation (Wang et al., ProlificDreamer, arXiv 2305.16213).

Letters as in schedule.py, w being the guidance scale, and eps_lora the prediction of the prior's
adapted copy, which learns to denoise what this seed renders:

    gradient = weight_t (eps_w(z_t, t) - eps_lora(z_t, t)),    z_t = alpha_t x + sigma_t eps,

and one step of Adam on E |eps_lora(z_t, t) - eps|^2 after every step of the sample. Where the
renderings are distributed as the prior's own samples the two predictions agree, and at w = 1 the
gradient is zero. One seed here is one particle.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dsd_jax.distillation.base import NOTHING, Given
from dsd_jax.distillation.common import missing, noised, result
from dsd_jax.distillation.learned import Learned, TrainedMethod, at_random_t
from dsd_jax.guidance import DenoiserAt
from dsd_jax.ode import Denoiser
from dsd_jax.schedule import NoiseSchedule


@dataclass(frozen=True)
class VSD(TrainedMethod):
    """Variational score distillation: the prior's prediction, less that of a copy that knows x."""

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
        """VSD gradient on x, and scalars to log: see `Method.gradient`.

        `key` is the source of the noise; `seed_noise` plays no part. Raises ValueError without
        `given.learned`, the prediction eps_lora.
        """
        del seed_noise
        if given.learned is None:
            raise missing(self, "learned", "the denoiser of the network that it trains")
        z_t, _ = noised(key, schedule, x, t)
        guided = denoiser_at(self.guidance_scale)
        grad = self.weight(schedule, t) * (guided(z_t, t) - given.learned(z_t, t))
        return result(grad, x)

    def update(
        self,
        key: jax.Array,
        state: Learned,
        learned_at: Callable[[Any], Denoiser],
        denoiser_at: DenoiserAt,
        schedule: NoiseSchedule,
        x: jax.Array,
        t: jax.Array | int,
    ) -> tuple[Learned, dict[str, jax.Array]]:
        """One step of the adapted network's training on x, and scalars to log: `Method.update`.

        As in the paper, `t` plays no part; nor does `denoiser_at`.
        """
        del denoiser_at, t
        z_t, eps, t_trained = at_random_t(key, schedule, x)

        def loss(weights):
            return jnp.mean(jnp.square(learned_at(weights)(z_t, t_trained) - eps))

        return self.descend(state, loss)
