"""What the prior is told about a view: the prompt, and where the camera stands.

Letters: n prompts, l d length and width of a text embedding. Angles are radians unless a name ends
in _deg. Priors with a camera get the camera; others get "<prompt>, front view" and so on.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsd_jax.guidance import DenoiserAt
from dsd_jax.optimization.presets import Settings
from dsd_jax.priors.stable_diffusion import Prior, camera_embedding_input
from dsd_jax.rendering.cameras import Camera

VIEWS = ("front view", "side view", "back view", "overhead view")


class Text(NamedTuple):
    """Embedded prompts of one run.

    Attributes:
        plain: [l, d] the prompt as it is.
        views: [4, l, d] the prompt with each of `VIEWS`.
        uncond: [l, d] the negative prompt.
    """

    plain: Float[Array, "l d"]
    views: Float[Array, "4 l d"]
    uncond: Float[Array, "l d"]


class Viewpoint(NamedTuple):
    """Where a view is taken from; stack the leaves for several views.

    Attributes:
        azimuth, elevation: [] radians.
    """

    azimuth: Float[Array, "*views"]
    elevation: Float[Array, "*views"]


def embed_prompt(prior: Prior, prompt: str, settings: Settings) -> Text:
    """The embeddings that a run needs; not jittable, since it tokenises."""
    prompts = [prompt, *(f"{prompt}, {view}" for view in VIEWS), settings.negative_prompt]
    embedded = prior.encode_prompt(prior.params, prompts)
    return Text(embedded[0], embedded[1:-1], embedded[-1])


def view_index(viewpoint: Viewpoint) -> jax.Array:
    """Index into `VIEWS`: within 45 degrees of the front, of the back, above 60, or from a side."""
    azimuth = jnp.abs(jnp.mod(viewpoint.azimuth + jnp.pi, 2 * jnp.pi) - jnp.pi)
    index = jnp.where(azimuth < jnp.pi / 4, 0, jnp.where(azimuth > 3 * jnp.pi / 4, 2, 1))
    return jnp.where(viewpoint.elevation > jnp.pi / 3, 3, index)


def condition(
    prior: Prior, params: Any, text: Text, viewpoint: Viewpoint, camera: Camera, settings: Settings
) -> DenoiserAt:
    """The prior's denoiser for one view, or for `settings.views` views denoised together.

    Args:
        viewpoint, camera: unbatched for one view, with a leading axis for several.
    """
    if prior.has_camera:
        embedded = camera_embedding_input(camera.camera_to_world)
        return prior.denoiser_at(params, text.plain, text.uncond, embedded, settings.views)
    words = text.views[view_index(viewpoint)] if settings.view_prompts else text.plain
    return prior.denoiser_at(params, words, text.uncond, num_views=settings.views)
