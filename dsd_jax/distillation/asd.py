"""Adversarial score distillation (Wei et al., arXiv 2312.00739).

Letters as in schedule.py, w being the guidance scale. A WGAN whose discriminator compares, by
Bayes' rule, the prior's text with a learned condition phi, here the prior's adapted copy. The
sample descends (eq. 7)

    weight_t (eps_w(z_t, t) - eps_phi(z_t, t)),    z_t = alpha_t x + sigma_t eps,

as in VSD; what differs is the discriminator's loss, which without real samples is (eq. 10)

    E |eps_phi(z_t, t) - eps|^2 + gamma |eps_phi(z_t, t) - eps_text(z_t, t)|^2,    gamma < 0.

At gamma = 0 that is VSD's. Its best eps_phi is (E[eps | z_t] + gamma eps_text) / (1 + gamma): for
gamma > -1 it overshoots what VSD learns, away from the prior; at -1 it has no minimum and only
the small number of steps bounds it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dsd_jax.checks import at_least
from dsd_jax.distillation.learned import Learned, at_random_t
from dsd_jax.distillation.vsd import VSD
from dsd_jax.guidance import DenoiserAt
from dsd_jax.ode import Denoiser
from dsd_jax.schedule import NoiseSchedule


@dataclass(frozen=True)
class ASD(VSD):
    """Adversarial score distillation: VSD whose copy is trained as a discriminator."""

    gamma: float = -0.5
    """Weight of the second term of the discriminator; the paper's is -0.5 in 3D and -1 in 2D, 0 is
    VSD's."""

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "method", -1, "gamma")

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
        """One step of the discriminator's training on x, and scalars to log: see `Method.update`.

        `denoiser_at` is asked for at 1; `t` plays no part.
        """
        del t
        z_t, eps, t_trained = at_random_t(key, schedule, x)
        text = jax.lax.stop_gradient(denoiser_at(1.0)(z_t, t_trained))

        def loss(weights):
            phi = learned_at(weights)(z_t, t_trained)
            return jnp.mean(jnp.square(phi - eps)) + self.gamma * jnp.mean(jnp.square(phi - text))

        return self.descend(state, loss)
