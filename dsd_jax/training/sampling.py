"""DDIM samples of an exported prior of text, for its scores.

Letters: p prompts, s seeds, v views, H W a picture.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dsd_jax import ode
from dsd_jax.data.objects import FOV_Y
from dsd_jax.guidance import below
from dsd_jax.priors import Viewpoint
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.rendering.cameras import DISTANCE, orbit

AROUND = (0.0, 90.0, 180.0, 270.0)
ELEVATION_DEG = 15.0
GUIDANCE = 5.0
AT_ONCE = 8  # seeds


class Sampler:
    """The samples of one prior: one program for single views, one for four views together."""

    def __init__(self, prior: Prior, steps: int = 30):
        self.prior = prior
        self.grid = ode.linear_grid(steps, prior.schedule.last)
        self._run = jax.jit(jax.vmap(self._one_seed, (None, None, 0, None, None, None)))

    def __call__(
        self,
        prompts: Sequence[str],
        seeds: int,
        azimuths_deg: Sequence[float] = (30.0,),
        guidance: float = GUIDANCE,
        guidance_below: float = 1.0,
    ) -> Float[np.ndarray, "p s v H W 3"]:
        """Pictures in [0, 1] at the given azimuths, 15 degrees up.

        Four azimuths are sampled together, with cross-view attention, any other number one by one.
        Seed k starts from the same noise for every prompt and every view. Guidance acts up to the
        share `guidance_below` of all timesteps, see `guidance.below`.
        """
        viewpoints = _viewpoints(azimuths_deg)
        noise = jax.random.normal(jax.random.key(0), (seeds, 1, *self.prior.latent_shape))
        t_high = guidance_below * self.prior.schedule.num_train_timesteps
        strength = float(guidance), float(t_high)

        def pictures(text, noise):
            run = partial(self._run, self.prior.params, text)
            if len(azimuths_deg) == 4:
                return np.asarray(run(noise, viewpoints, *strength))
            each = (jax.tree.map(lambda leaf, i=i: leaf[i], viewpoints)
                    for i in range(len(azimuths_deg)))  # fmt: skip
            return np.stack([run(noise[:, 0], one, *strength) for one in each], 1)

        texts = [self.prior.condition(prompt, view_prompts="none") for prompt in prompts]
        parts = [noise[i : i + AT_ONCE] for i in range(0, seeds, AT_ONCE)]
        return np.stack([np.concatenate([pictures(text, n) for n in parts]) for text in texts])

    def _one_seed(self, params, text, noise, viewpoints: Viewpoint, guidance, t_high):
        """[v, H, W, 3] of noise [1, ...] at viewpoints [v], or [H, W, 3] of [...] at a single."""
        together = jnp.ndim(viewpoints.azimuth) == 1
        if together:
            noise = jnp.repeat(noise, len(viewpoints.azimuth), 0)
        denoiser = below(self.prior.denoiser_at(params, text, viewpoints), t_high)(guidance)
        x = ode.integrate(denoiser, self.prior.schedule, noise, self.grid, self.grid[-1]).xhat_t
        decode = partial(self.prior.decode, params)
        return jnp.clip((jax.vmap(decode) if together else decode)(x)[..., :3], 0, 1)


def _viewpoints(azimuths_deg: Sequence[float]) -> Viewpoint:
    azimuth = jnp.radians(jnp.asarray(azimuths_deg, jnp.float32))
    elevation = jnp.full_like(azimuth, jnp.radians(ELEVATION_DEG))
    return Viewpoint(azimuth, elevation, orbit(azimuth, elevation, DISTANCE, FOV_Y).camera_to_world)
