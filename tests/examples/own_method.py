"""A distillation method of one's own: SDS without noise in its gradient, towards a sharper mode."""

import dataclasses
from dataclasses import dataclass

import dsd_jax as dsd
from dsd_jax.distillation import NOTHING, noised, result


@dataclass(frozen=True)
class Classifier(dsd.Method):
    """What the text adds to the prior's prediction, and nothing else."""

    strength: float = 1.0
    """Factor on the gradient."""

    def gradient(self, key, denoiser_at, schedule, x, seed_noise, t, given=NOTHING):
        z_t, _ = noised(key, schedule, x, t)
        away = denoiser_at(self.guidance_scale)(z_t, t) - denoiser_at(0.0)(z_t, t)
        return result(self.strength * self.weight(schedule, t) * away, x)


def recipe(base: dsd.Recipe) -> dsd.Recipe:
    return dataclasses.replace(base, method=Classifier(guidance_scale=3.0, strength=0.5))
