"""What the prior is told about a view: the prompt or the picture, and where the camera stands.

Letters: n prompts, l d length and width of a text embedding, s side of a picture. Angles are
radians unless a name ends in _deg. Priors with a camera get the camera; others get "<prompt>, front
view" and so on, as `Settings.view_prompts` says; those that take a picture get the view relative to
that of the picture, whose camera stands at azimuth 0.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsd_jax.guidance import DenoiserAt, ViewPrompts, blend_views
from dsd_jax.priors import zero123
from dsd_jax.priors.stable_diffusion import Prior, camera_embedding_input
from dsd_jax.recipe.presets import Settings
from dsd_jax.rendering.cameras import Camera, orbit

VIEWS = ("front view", "side view", "back view", "overhead view")
# The elevation above which a view is an overhead view.
OVERHEAD = jnp.pi / 3
# From so far from a picture's own view on, a view shows more of what the picture hides.
UNSEEN_DEG = 90.0
# Up to so far from it a view shows what the picture shows.
VISIBLE_DEG = 60.0


class Text(NamedTuple):
    """Embedded prompts of one run.

    Attributes:
        plain: [l, d] the prompt as it is.
        views: [4, l, d] the prompt with each of `VIEWS`.
        uncond: [l, d] the negative prompt.
        nfsd: [l, d] NFSD's prompt for bad pictures; None where no method will ask for it.
    """

    plain: Float[Array, "l d"]
    views: Float[Array, "4 l d"]
    uncond: Float[Array, "l d"]
    nfsd: Float[Array, "l d"] | None = None


class Picture(NamedTuple):
    """What one picture of the object tells a run, in the place of a `Text`.

    Attributes:
        image: what the prior is told of it.
        elevation: [] of the camera that took it.
        rgb, mask, depth, normal: what the object is to look like from there, as in
            `input_picture.InputPicture`.
    """

    image: zero123.ImageConditioning
    elevation: Float[Array, ""]
    rgb: Float[Array, "s s 3"]
    mask: Float[Array, "s s"]
    depth: Float[Array, "s s"] | None = None
    normal: Float[Array, "s s 3"] | None = None


# What a run is given.
Prompt = Text | Picture


class Shared(NamedTuple):
    """What all seeds share: never copied per seed, never a constant of the compiled program.

    Attributes:
        prior: weights of the prior.
        text: the embedded prompt, or the picture.
    """

    prior: Any
    text: Prompt


class Viewpoint(NamedTuple):
    """Where a view is taken from; stack the leaves for several views.

    Attributes:
        azimuth, elevation: [] radians.
    """

    azimuth: Float[Array, "*views"]
    elevation: Float[Array, "*views"]


def embed_prompt(prior: Prior, prompt: str, settings: Settings) -> Text:
    """The embeddings that a run needs; not jittable, since it tokenises."""
    of_views = [f"{prompt}, {view}" for view in VIEWS]
    prompts = [prompt, *of_views, settings.negative_prompt, settings.nfsd_prompt]
    embedded = prior.encode_prompt(prior.params, prompts)
    return Text(embedded[0], embedded[1:-2], embedded[-2], embedded[-1])


def sample_viewpoints(key: jax.Array, settings: Settings) -> tuple[Viewpoint, Camera]:
    """Random viewpoints with leading axis v, evenly spread in azimuth, of one elevation."""
    azimuth_key, elevation_key = jax.random.split(key)
    turn = jnp.arange(settings.views) * (2 * jnp.pi / settings.views)
    azimuth = jax.random.uniform(azimuth_key, (), maxval=2 * jnp.pi) + turn
    low, high = jnp.deg2rad(settings.elevation_min_deg), jnp.deg2rad(settings.elevation_max_deg)
    elevation = jax.random.uniform(elevation_key, (), minval=low, maxval=high)
    viewpoint = Viewpoint(azimuth, jnp.broadcast_to(elevation, azimuth.shape))
    return viewpoint, camera_at(viewpoint, settings)


def camera_at(viewpoint: Viewpoint, settings: Settings) -> Camera:
    """The camera there in the run's framing, leaves with the viewpoint's axes."""
    return orbit(*viewpoint, settings.distance, jnp.deg2rad(settings.fov_deg))


def apart(azimuth: Float[Array, "*views"]) -> Float[Array, "*views"]:
    """How far an azimuth is from 0, on either side: 0 to pi."""
    return jnp.abs(jnp.mod(azimuth + jnp.pi, 2 * jnp.pi) - jnp.pi)


def view_index(viewpoint: Viewpoint) -> jax.Array:
    """Index into `VIEWS`: within 45 degrees of the front, of the back, above 60, or from a side."""
    azimuth = apart(viewpoint.azimuth)
    index = jnp.where(azimuth < jnp.pi / 4, 0, jnp.where(azimuth > 3 * jnp.pi / 4, 2, 1))
    return jnp.where(viewpoint.elevation > OVERHEAD, 3, index)


def blend(text: Text, viewpoint: Viewpoint) -> ViewPrompts:
    """The authors' Perp-Neg prompts for one view, continuous in its azimuth (arXiv 2304.04968)."""
    front, side, back, overhead = text.views
    angles_deg = jnp.rad2deg(viewpoint.azimuth), jnp.rad2deg(viewpoint.elevation)
    return blend_views(side, front, back, overhead, *angles_deg)


def takes_picture(prior: Any) -> bool:
    """Whether a prior is told of a picture and a relative view, each view by itself."""
    return isinstance(prior, zero123.Prior)


def condition(
    prior: Any,
    params: Any,
    text: Prompt,
    viewpoint: Viewpoint,
    camera: Camera,
    settings: Settings,
) -> DenoiserAt:
    """The prior's denoiser for one view; with a camera, for `settings.views` views together.

    Args:
        viewpoint, camera: unbatched for one view, with a leading axis for several, which only a
            prior with a camera takes.
    """
    if isinstance(text, Picture):
        return of_picture(prior, params, text, viewpoint)
    if settings.view_prompts == "perp-neg" and not prior.has_camera:
        return prior.perp_neg_at(params, blend(text, viewpoint), text.uncond)
    words = text.plain if prior.has_camera else words_of(text, viewpoint, settings)
    return of_prompt(prior, params, words, text, camera, settings)


def of_picture(prior: Any, params: Any, picture: Picture, viewpoint: Viewpoint) -> DenoiserAt:
    """The same for the object of a picture; its camera and the view's are equally far away."""
    source = zero123.View(picture.elevation, 0.0, 0.0)
    target = zero123.View(viewpoint.elevation, viewpoint.azimuth, 0.0)
    return prior.denoiser_at(params, picture.image, prior.pose(target, source))


def visible(viewpoint: Viewpoint) -> Float[Array, "*views"]:
    """How much a view shows of what a picture from azimuth 0 shows.

    1 up to VISIBLE_DEG from it, from there falling linearly to 0 where most is hidden.
    """
    apart_deg = jnp.rad2deg(apart(viewpoint.azimuth))
    return jnp.clip((UNSEEN_DEG - apart_deg) / (UNSEEN_DEG - VISIBLE_DEG), 0.0, 1.0)


def of_prompt(
    prior: Prior, params: Any, words: Any, text: Text, camera: Camera, settings: Settings
) -> DenoiserAt:
    """The same for another prompt, embedded as `words` [l, d]; only a camera tells of the view."""
    if prior.has_camera:
        embedded = camera_embedding_input(camera.camera_to_world)
        return prior.denoiser_at(params, words, text.uncond, embedded, settings.views)
    return prior.denoiser_at(params, words, text.uncond)


def words_of(text: Text, viewpoint: Viewpoint, settings: Settings) -> Float[Array, "l d"]:
    """The prompt for one view of a prior without camera."""
    if settings.view_prompts == "perp-neg":
        return blend(text, viewpoint).text
    return text.views[view_index(viewpoint)] if settings.view_prompts == "words" else text.plain
