"""Pictures of a mesh as clay: no texture, one grey, one light, every triangle flat.

Letters: n vertices, f faces, v views, h w pixels.

The light stands up and to the left behind each camera, so that no side is dark. Both sides of a
triangle are seen, for real objects are not wound consistently.
"""

import numpy as np
from einops import reduce
from jaxtyping import Float, Int, UInt8

from dsd_jax.export.pictures import to_uint8
from dsd_jax.export.raster import visible
from dsd_jax.rendering.cameras import Camera, camera_at
from dsd_jax.rendering.scene import GREY

# Albedo, share of it that every face gets, and the light as the camera has it: right, up, back.
_CLAY, _AMBIENT = 0.72, 0.25
_LIGHT = np.array([-2.0, 4.0, 4.0]) / 6


def clay_views(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    cameras: Camera,
    size: int = 128,
    supersample: int = 2,
) -> UInt8[np.ndarray, "v h w 3"]:
    """Pictures on grey, by v stacked cameras, of a mesh in world coordinates."""
    each = (camera_at(cameras, i) for i in range(cameras.fov_y.shape[0]))
    return np.stack([_view(vertices, faces, camera, size, supersample) for camera in each])


def _view(vertices, faces, camera: Camera, size: int, supersample: int):
    fine = size * supersample
    found = visible(vertices, faces, camera, fine, cull=False)
    picture = np.full(fine * fine, GREY)
    picture[found.pixel] = _brightness(np.asarray(vertices)[faces[found.face]], camera)
    small = reduce(picture, "(h a w b) -> h w", "mean", h=size, a=supersample, b=supersample)
    return np.repeat(to_uint8(small)[..., None], 3, -1)


def _brightness(corners: Float[np.ndarray, "m 3 3"], camera: Camera) -> Float[np.ndarray, "m"]:
    """Of triangles by their corners, each turned to the camera."""
    pose = np.asarray(camera.camera_to_world, np.float64)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)
    away = ((pose[:3, 3] - corners[:, 0]) * normal).sum(1) < 0
    cosine = normal @ (pose[:3, :3] @ _LIGHT) * np.where(away, -1, 1)
    return _CLAY * (_AMBIENT + (1 - _AMBIENT) * np.maximum(cosine, 0))
