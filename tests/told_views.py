"""A prior that shows what it was told about the view: one Gaussian, known exactly."""

import dataclasses
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp

from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.priors.base import Defaults
from dsd_jax.priors.gaussian import GaussianMixture
from dsd_jax.priors.view_words import Text, blend, view_index
from dsd_jax.schedule import NoiseSchedule

SHAPE = (2, 2, 1)
VARIANCE = 0.3
TEXT = Text(jnp.ones((1, 1)), jnp.arange(4.0).reshape(4, 1, 1), jnp.zeros((1, 1)))


@dataclasses.dataclass(frozen=True)
class Told(Defaults):
    """One Gaussian whose mean is what it was told about the view.

    Attributes:
        tells: which viewpoints are different to it.
        denoises_together: whether views are drawn to their common mean.
        counts: guidance scale -> evaluations, one for all views of a step.
    """

    tells: str
    denoises_together: bool = False
    counts: Counter | None = None
    latent_shape: tuple = SHAPE
    params = None

    @property
    def schedule(self):
        return NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)

    def tells_apart(self, condition):
        return self.tells

    def denoiser_at(self, params, text, viewpoints):
        rotation = viewpoints.camera_to_world[..., :3, :3]
        blended = blend(text, viewpoints) if self.tells == "sides" else None
        mean = {
            "cameras": lambda: rotation.reshape(*rotation.shape[:-2], 9) @ jnp.linspace(-1, 1, 9),
            "sides": lambda: blended.text[0, 0] + blended.weights @ blended.negatives[:, 0, 0],
            "words": lambda: text.views[view_index(viewpoints), 0, 0],
            "nothing": lambda: text.plain[0, 0],
        }[self.tells]()
        mean = jnp.broadcast_to(mean[..., None, None, None], (*mean.shape, *SHAPE))

        def denoiser_at(scale):
            def denoiser(x, t):
                if self.counts is not None:
                    jax.debug.callback(partial(self.counts.update, [float(scale)]))
                mixture = GaussianMixture(jnp.zeros(1), scale * mean[None], jnp.array(VARIANCE))
                eps = mixture.eps(self.schedule, x, t)
                return eps if mean.ndim == 3 else eps + 0.1 * jnp.mean(x, 0)

            return denoiser

        return denoiser_at
