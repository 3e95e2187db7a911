"""Score implicit matching (Luo et al., arXiv 2410.16794), as Dive3D distils (arXiv 2506.13594).

Letters as in schedule.py, w being the guidance scale; xhat and xhat_lora are the one-step
predictions at z_t of the prior, guided by w, and of its adapted copy, which is trained as in VSD.
The sample descends

    loss = u . (xhat_lora - x),    u = v / sqrt(|v|^2 + c^2),    v = (xhat - xhat_lora) / s_t,

with z_t = alpha_t x + sigma_t eps, each view by itself, and with all derivatives, also those
through both networks: a distance of scores in place of VSD's divergence of Kullback and Leibler,
which seeks modes. c belongs to the pseudo-Huber distance. What is published has no further weight
over t: here weighting "one-step". A step takes a pass backwards through both networks.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from dsd_jax.distillation.base import NOTHING, Given
from dsd_jax.distillation.common import missing, noised, result
from dsd_jax.distillation.vsd import VSD
from dsd_jax.guidance import DenoiserAt
from dsd_jax.schedule import NoiseSchedule

# c over the square root of a view's size: predictions that are closer count for little.
_CLOSE = 1e-3


@dataclass(frozen=True)
class SIM(VSD):
    """Score implicit matching: the distance of two scores, differentiated as a whole."""

    differentiates: ClassVar[bool] = True

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
        """SIM gradient on x, and scalars to log: see `Method.gradient`.

        `key` is the source of the noise; `seed_noise` plays no part. Raises ValueError without
        `given.learned`, the prediction of the adapted copy.
        """
        del seed_noise
        learned = given.learned
        if learned is None:
            raise missing(self, "learned", "the denoiser of the network that it trains")
        z_t, eps = noised(key, schedule, x, t)
        axes = tuple(range(-min(x.ndim, 3), 0))

        def loss(z_t):
            eps_lora = learned(z_t, t)
            v = eps_lora - denoiser_at(self.guidance_scale)(z_t, t)
            rms = jnp.sqrt(jnp.mean(jnp.square(v), axes, keepdims=True) + _CLOSE**2)
            u = v / rms / math.sqrt(math.prod(x.shape[axes[0] :]))
            return jnp.sum(u * schedule.s(t) * (eps - eps_lora))

        along = schedule.alpha(t) * jax.grad(loss)(z_t)
        return result(self.weight(schedule, t) / schedule.s(t) * along, x)
