"""Shading of albedo by a point light, after DreamFusion (Poole et al. 2022), section 3.1.

rgb = albedo * (ambient + diffuse * max(0, n . l)), l the unit vector towards the light; a
textureless picture replaces albedo by 1, so that only the shape shows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsd_jax.rendering.cameras import Camera


class PointLight(NamedTuple):
    """One light; every leaf may be traced, so one compiled step serves all kinds of shading.

    Attributes:
        position: [3] world coordinates.
        ambient, diffuse: [] brightness of the two parts; together at most 1.
        textureless: [] 0 keeps the albedo, 1 replaces it by white.
    """

    position: Float[Array, "3"]
    ambient: Float[Array, ""]
    diffuse: Float[Array, ""]
    textureless: Float[Array, ""]


def sample_light(
    key: jax.Array,
    camera: Camera,
    textureless_probability=0.5,
    *,
    ambient: float = 0.1,
    spread: float = 1.0,
) -> PointLight:
    """A random light around the camera, as in DreamFusion, scaled to the camera's distance.

    Its direction from the origin is that of the camera plus a normal vector of `spread`, its
    distance 0.8 to 1.5 times the camera's. ambient + diffuse = 1.
    """
    direction_key, distance_key, texture_key = jax.random.split(key, 3)
    position = camera.camera_to_world[:3, 3]
    away = jnp.linalg.norm(position)
    direction = position / away + spread * jax.random.normal(direction_key, (3,))
    direction = direction / jnp.linalg.norm(direction)
    distance = away * jax.random.uniform(distance_key, (), minval=0.8, maxval=1.5)
    plain = jax.random.uniform(texture_key) < textureless_probability
    level = jnp.asarray(ambient, jnp.float32)
    return PointLight(direction * distance, level, 1 - level, plain.astype(jnp.float32))


def illumination(
    light: PointLight, points: Float[Array, "... 3"], normals: Float[Array, "... 3"]
) -> Float[Array, "..."]:
    """ambient + diffuse * max(0, n . l) at points with unit normals."""
    towards = light.position - points
    towards = towards / jnp.maximum(jnp.linalg.norm(towards, axis=-1, keepdims=True), 1e-6)
    return light.ambient + light.diffuse * jnp.maximum(jnp.sum(normals * towards, -1), 0)


def surface_colour(light: PointLight, albedo: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    """The albedo, or white to the degree that the light is textureless."""
    return albedo + light.textureless * (1 - albedo)
