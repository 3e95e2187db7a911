"""Pinhole cameras on an orbit, and their rays.

World axes are those of OpenGL and glTF: y up, a camera looks along its own -z. Azimuth 0 lies on
+z, where the front of a Toybox object faces, and grows from +z towards +x.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# The framing of Toybox's training pictures and of results: distance from the origin, vertical
# field of view.
DISTANCE, FOV_DEG = 2.7, 40.0
# From where objects are looked at in results and by the judge.
ELEVATION_DEG = 20.0
AZIMUTHS_DEG = tuple(45.0 * i for i in range(8))


class Camera(NamedTuple):
    """One pinhole camera; stack the leaves for several.

    Attributes:
        camera_to_world: [4, 4] rigid transform, columns right, up, backward, position.
        fov_y: [] vertical field of view, radians.
    """

    camera_to_world: Float[Array, "*batch 4 4"]
    fov_y: Float[Array, "*batch"]


def orbit(azimuth, elevation, distance, fov_y, xp: Any = jnp) -> Camera:
    """Camera at `distance` from the origin, looking at it.

    Angles are radians, scalars or arrays of one shape; |elevation| < pi/2. Position is
    distance * (sin az cos el, sin el, cos az cos el). xp: the library of the leaves, `np` or `jnp`.
    """
    azimuth, elevation, distance, fov_y = xp.broadcast_arrays(
        *(xp.asarray(a, xp.float32) for a in (azimuth, elevation, distance, fov_y))
    )
    sin_a, cos_a = xp.sin(azimuth), xp.cos(azimuth)
    sin_e, cos_e = xp.sin(elevation), xp.cos(elevation)
    zero = xp.zeros_like(azimuth)
    backward = xp.stack([sin_a * cos_e, sin_e, cos_a * cos_e], -1)
    right = xp.stack([cos_a, zero, -sin_a], -1)
    up = xp.cross(backward, right)
    position = distance[..., None] * backward
    top = xp.stack([right, up, backward, position], -1)
    last = xp.asarray([0.0, 0.0, 0.0, 1.0], xp.float32)
    bottom = xp.broadcast_to(last, (*azimuth.shape, 1, 4))
    return Camera(xp.concatenate([top, bottom], -2), fov_y)


def rays(camera: Camera, height: int, width: int, offset=(0.0, 0.0)) -> tuple[jax.Array, jax.Array]:
    """Ray origins [height, width, 3] and unit directions [height, width, 3] through pixel centres.

    Row 0 is the top of the image. offset: how far below and to the right of the centres the rays go
    instead, in pixels.
    """
    tan, (down, right) = jnp.tan(camera.fov_y / 2), offset
    y = tan * (1 - (2 * (jnp.arange(height) + down) + 1) / height)
    x = tan * (width / height) * ((2 * (jnp.arange(width) + right) + 1) / width - 1)
    grid_y, grid_x = jnp.meshgrid(y, x, indexing="ij")
    local = jnp.stack([grid_x, grid_y, -jnp.ones_like(grid_x)], -1)
    rotation = camera.camera_to_world[:3, :3]
    directions = jnp.einsum("ij,hwj->hwi", rotation, local, precision="highest")
    directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    return jnp.broadcast_to(camera.camera_to_world[:3, 3], directions.shape), directions


def pixel_rays(cameras: Camera, view, row, column, size: int) -> tuple[jax.Array, jax.Array]:
    """Origins and unit directions [r, 3] of single pixels of pictures of size x size.

    Args:
        cameras: v of them, stacked, of one field of view.
        view, row, column: [r] which camera, and which pixel; row 0 is the top.
    """
    tan = jnp.tan(cameras.fov_y[view] / 2)
    y = tan * (1 - (2 * row + 1) / size)
    x = tan * ((2 * column + 1) / size - 1)
    local = jnp.stack([x, y, -jnp.ones_like(x)], -1)
    pose = cameras.camera_to_world[view]
    directions = jnp.einsum("rij,rj->ri", pose[:, :3, :3], local, precision="highest")
    directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    return pose[:, :3, 3], directions


def ring(azimuths_deg: Sequence[float], elevation_deg, distance, fov_deg) -> Camera:
    """v cameras, stacked, one on each azimuth, all looking at the origin; leaves are NumPy's."""
    azimuths = np.deg2rad(np.asarray(azimuths_deg, np.float32))
    return orbit(azimuths, np.deg2rad(elevation_deg), distance, np.deg2rad(fov_deg), np)


def camera_at(cameras: Camera, index: int) -> Camera:
    """One of a stack of cameras."""
    return jax.tree.map(lambda leaf: leaf[index], cameras)
