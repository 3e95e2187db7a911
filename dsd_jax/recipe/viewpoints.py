"""Where a step looks from, and what all seeds of a run are given.

Letters: v views, s side of a picture. Angles are radians unless a name ends in _deg. The camera
that took a picture stands at azimuth 0.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsd_jax.distillation import Method
from dsd_jax.guidance import DenoiserAt, at_temperature, rescaled
from dsd_jax.priors.base import Prior, Viewpoint, angle_from_front
from dsd_jax.recipe.parts import CameraSettings
from dsd_jax.rendering.cameras import Camera, orbit

# Up to so far from the picture's own view a view shows what the picture shows ...
VISIBLE_DEG = 60.0
# ... and from so far on it shows more of what the picture hides.
UNSEEN_DEG = 90.0


class Reference(NamedTuple):
    """What a picture says of its own view, as in `input_picture.InputPicture`.

    Attributes:
        elevation: [] of the camera that took it.
        rgb, mask, depth, normal: what the object is to look like from there.
    """

    elevation: Float[Array, ""]
    rgb: Float[Array, "s s 3"]
    mask: Float[Array, "s s"]
    depth: Float[Array, "s s"] | None = None
    normal: Float[Array, "s s 3"] | None = None

    @property
    def elevation_deg(self) -> float:
        """As a user says it."""
        return round(math.degrees(float(self.elevation)), 4)


class Other(NamedTuple):
    """Another picture of the same object.

    Attributes:
        azimuth: [] of its camera, as seen from the first picture's.
        picture: what it says.
    """

    azimuth: Float[Array, ""]
    picture: Reference


class Shared(NamedTuple):
    """What all seeds share: never copied per seed, never a constant of the compiled program.

    Attributes:
        prior: weights of the prior.
        condition: what the prior was told, of its own `condition`.
        negative: the same of the method's `bad_prompt`, where it has one.
        reference: where the run has a picture.
        others: pictures of the same object.
    """

    prior: Any
    condition: Any
    negative: Any = None
    reference: Reference | None = None
    others: tuple[Other, ...] = ()

    @property
    def pictures(self) -> int:
        """How many there are."""
        return (self.reference is not None) + len(self.others)


def as_seen(
    prior: Prior, rgb: Float[Array, "*v h w 3"], opacity: Float[Array, "*v h w"]
) -> Float[Array, "*v h w k"]:
    """Renderings as the prior takes pictures: colours, and opacity where it sees that."""
    return jnp.concatenate([rgb, opacity[..., None]], -1) if prior.sees_opacity else rgb


def sample_viewpoints(
    key: jax.Array, cameras: CameraSettings, fixed: tuple[Any, Any, Any] | None = None
) -> tuple[Viewpoint, Camera]:
    """Random viewpoints with leading axis v, evenly spread in azimuth, of one elevation.

    Args:
        fixed: (whether the first one is not random but stands at, azimuth, elevation), scalars.
    """
    azimuth_key, elevation_key = jax.random.split(key)
    first = jax.random.uniform(azimuth_key, (), maxval=2 * jnp.pi)
    elevation = random_elevation(elevation_key, cameras)
    if fixed is not None:
        first = jnp.where(fixed[0], fixed[1], first)
        elevation = jnp.where(fixed[0], fixed[2], elevation)
    return viewpoints_around(first, elevation, cameras.views, cameras)


def random_elevation(key: jax.Array, cameras: CameraSettings) -> jax.Array:
    """One of those that a run looks from, [], radians."""
    low, high = jnp.deg2rad(cameras.elevation_min_deg), jnp.deg2rad(cameras.elevation_max_deg)
    return jax.random.uniform(key, (), minval=low, maxval=high)


def viewpoints_around(
    first: Any, elevation: Any, views: int, cameras: CameraSettings
) -> tuple[Viewpoint, Camera]:
    """So many, evenly spread in azimuth from `first` on, of one elevation."""
    azimuth = first + jnp.arange(views) * (2 * jnp.pi / views)
    return viewpoint_at(azimuth, jnp.broadcast_to(elevation, azimuth.shape), cameras)


def viewpoint_at(azimuth, elevation, cameras: CameraSettings) -> tuple[Viewpoint, Camera]:
    """The viewpoint there and its camera in the run's framing, leaves with the angles' axes."""
    azimuth, elevation = jnp.asarray(azimuth), jnp.asarray(elevation)
    camera = orbit(azimuth, elevation, cameras.distance, jnp.deg2rad(cameras.fov_deg))
    return Viewpoint(azimuth, elevation, camera.camera_to_world), camera


def visible(viewpoint: Viewpoint, others: tuple[Other, ...] = ()) -> Float[Array, "*views"]:
    """How much a view shows of what a picture from azimuth 0 shows, or one of others.

    1 up to VISIBLE_DEG from it, from there falling linearly to 0 where most is hidden.
    """
    apart = angle_from_front(viewpoint.azimuth)
    for other in others:
        apart = jnp.minimum(apart, angle_from_front(viewpoint.azimuth - other.azimuth))
    apart_deg = jnp.rad2deg(apart)
    return jnp.clip((UNSEEN_DEG - apart_deg) / (UNSEEN_DEG - VISIBLE_DEG), 0.0, 1.0)


def guided(
    prior: Prior, params: Any, condition: Any, viewpoint: Viewpoint, method: Method
) -> DenoiserAt:
    """The prior's denoisers of a viewpoint, as a method wants them.

    That is with its `guidance.rescaled` and its `guidance.at_temperature`.
    """
    plain = prior.denoiser_at(params, condition, viewpoint)
    at = rescaled(plain, method.guidance_rescale, prior.schedule)
    return at_temperature(at, method.tsr_k, method.tsr_sigma, prior.schedule)
