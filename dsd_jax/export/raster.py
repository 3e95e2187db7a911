"""Triangles to pixels, in NumPy: for texture atlases, and for pictures of textured meshes.

Letters: f triangles, n vertices, m fragments (pixel centres in a triangle), h w pixels, v views.
Pixel (row, column) has its centre at (column + 1/2, row + 1/2).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from dsd_jax.rendering.cameras import Camera, camera_at


class Fragments(NamedTuple):
    """Pixel centres and the triangles that they lie in.

    Attributes:
        pixel: [m] row * width + column.
        face: [m] index of the triangle.
        weights: [m, 3] barycentric coordinates.
    """

    pixel: Int[np.ndarray, "m"]
    face: Int[np.ndarray, "m"]
    weights: Float[np.ndarray, "m 3"]


def rasterise(corners: Float[np.ndarray, "f 3 2"], height: int, width: int) -> Fragments:
    """All fragments of triangles given by their corners (column, row), in order of the faces.

    Both windings are taken; triangles without area have no fragments.
    """
    low = np.ceil(np.clip(corners.min(1), -1, [width, height]) - 0.5).astype(np.int64)
    high = np.floor(np.clip(corners.max(1), -1, [width, height]) - 0.5).astype(np.int64)
    low, high = np.maximum(low, 0), np.minimum(high, [width - 1, height - 1])
    box = np.maximum(high - low + 1, 0)
    counts = box.prod(1)
    face = np.repeat(np.arange(len(corners)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    column = low[face, 0] + within % np.maximum(box[face, 0], 1)
    row = low[face, 1] + within // np.maximum(box[face, 0], 1)
    at = np.stack([column, row], -1) + 0.5
    a, b, c = (corners[face, i] - at for i in range(3))
    areas = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], -1)
    total = areas.sum(-1, keepdims=True)
    weights = areas / np.where(np.abs(total) > 1e-12, total, np.nan)
    inside = (weights >= -1e-9).all(-1)  # False for nan
    return Fragments((row * width + column)[inside], face[inside], weights[inside])


def _cross(a, b):
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def visible(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    camera: Camera,
    size: int,
    cull: bool = True,
) -> Fragments:
    """The nearest fragment of each pixel; weights are right for interpolation in space.

    Args:
        cull: leave out triangles seen from behind, as viewers do.
    """
    screen, depth = _projected(vertices, camera, size)
    corners = screen[faces]
    edges = corners[:, 1:] - corners[:, :1]
    front = np.flatnonzero((_cross(edges[:, 0], edges[:, 1]) < 0) | (not cull))
    found = rasterise(corners[front], size, size)
    face = front[found.face]
    weights = found.weights / depth[faces[face]]
    nearness = weights.sum(-1)
    order = np.lexsort((nearness, found.pixel))
    last = np.flatnonzero(np.diff(found.pixel[order], append=-1))
    first = order[last]
    weights = weights[first] / nearness[first, None]
    return Fragments(found.pixel[first], face[first], weights)


def _projected(points: Float[np.ndarray, "m 3"], camera: Camera, size: int):
    """(column, row) and depth of points."""
    matrix = np.asarray(camera.camera_to_world, np.float64)
    local = (points - matrix[:3, 3]) @ matrix[:3, :3]
    depth = np.maximum(-local[:, 2], 1e-6)
    flat = local[:, :2] / (depth * np.tan(float(camera.fov_y) / 2))[:, None]
    return (flat * [1, -1] + 1) * (size / 2), depth


def seen(
    points: Float[np.ndarray, "m 3"],
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    cameras: Camera,
    size: int = 192,
    tolerance: float = 0.02,
) -> Bool[np.ndarray, "m"]:
    """Which points of a mesh one of v stacked cameras sees: no face lies nearer by `tolerance`.

    Pictures are size x size; points beyond their edges are not seen.
    """
    met = np.zeros(len(points), bool)
    for i in range(cameras.fov_y.shape[0]):
        camera = camera_at(cameras, i)
        found = visible(vertices, faces, camera, size, cull=False)
        corners = _projected(vertices, camera, size)[1][faces[found.face]]
        nearest = np.full(size * size, np.inf)
        nearest[found.pixel] = (found.weights * corners).sum(1)
        screen, depth = _projected(points, camera, size)
        column, row = np.floor(np.clip(screen, -1, size)).astype(int).T
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        pixel = np.where(inside, row * size + column, 0)
        met |= inside & (depth <= nearest[pixel] + tolerance)
    return met


def sample_texture(
    texture: UInt8[np.ndarray, "h w 3"], uv: Float[np.ndarray, "m 2"]
) -> Float[np.ndarray, "m 3"]:
    """Bilinear colours in [0, 1] at (u, v), v = 0 being the top row, as in glTF."""
    height, width, _ = texture.shape
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip(uv[:, 1] * height - 0.5, 0, height - 1)
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    u, v = (x - left)[:, None], (y - top)[:, None]
    upper = texture[top, left] * (1 - u) + texture[top, left + 1] * u
    lower = texture[top + 1, left] * (1 - u) + texture[top + 1, left + 1] * u
    return (upper * (1 - v) + lower * v) / 255
