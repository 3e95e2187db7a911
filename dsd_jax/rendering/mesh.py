"""Ray caster for triangle meshes: every ray against every triangle, fused, no acceleration tree.

Homogeneous edge functions: for a ray from the origin along d and a triangle (v0, v1, v2) given
relative to that origin, u_i = d . (v_j x v_k) / det[v0 v1 v2] (i, j, k cyclic). The ray meets the
triangle iff all u_i >= 0 and s = u_0 + u_1 + u_2 > 0; then d / s is the point of impact, u_i / s
are its barycentric coordinates, and the nearest triangle has the largest s. With camera-space
directions d = (x tan, y tan, -1), s is one over the depth, and each u_i is affine in the
normalised device coordinates (x, y).

Letters: h, w image; f faces; p sample points of the image; k numbers per face; l lights.
Colours stay sRGB throughout: shading multiplies them, nothing is linearised.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsd_jax.rendering.cameras import Camera

# Each triangle grows by this share of its barycentric coordinates, so that float32 rounding lets
# no ray slip between two neighbours; and unrolled triangles per pass over the samples.
_GROW = 1e-5
_UNROLL = 32


class Lights(NamedTuple):
    """Ambient light and l directional lights, fixed in the world; stack the leaves for several.

    Attributes:
        ambient: [] factor that every face gets.
        directions: [l, 3] unit vectors towards the lights.
        intensities: [l] factor added where a face looks straight at the light.
    """

    ambient: Float[Array | np.ndarray, "*batch"]
    directions: Float[Array | np.ndarray, "*batch l 3"]
    intensities: Float[Array | np.ndarray, "*batch l"]


def render_mesh(
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    face_rgb: Float[Array, "f 3"],
    camera: Camera,
    lights: Lights,
    resolution: int = 128,
    supersample: int = 2,
) -> Float[Array, "h w 4"]:
    """Picture of a flatly coloured mesh, both sides of every triangle visible.

    Rows of zeros in `faces` are degenerate triangles and never hit: pad with them.

    Args:
        vertices: world coordinates.
        faces: indices into `vertices`.
        face_rgb: sRGB in [0, 1].
        camera: one camera (vmap for several).
        lights: one set of lights.
        resolution: height and width in pixels.
        supersample: samples per pixel and axis, averaged by a box filter.

    Returns:
        RGBA in [0, 1] with the colour PREMULTIPLIED by alpha: over a background b the picture is
        rgba[..., :3] + (1 - rgba[..., 3:]) * b.
    """
    return render_triangles(vertices[faces], face_rgb, camera, lights, resolution, supersample)


def render_triangles(
    triangles: Float[Array, "f 3 3"],
    face_rgb: Float[Array, "f 3"],
    camera: Camera,
    lights: Lights,
    resolution: int = 128,
    supersample: int = 2,
) -> Float[Array, "h w 4"]:
    """`render_mesh` for triangles given by their corners [face, corner, xyz]."""
    fine = resolution * supersample
    face, _ = cast(triangles, camera, fine, fine)
    colours = shade(triangles, face_rgb, camera, lights)
    hit = (face >= 0)[..., None]
    rgba = jnp.concatenate([colours[face] * hit, hit.astype(colours.dtype)], -1)
    blocks = rgba.reshape(resolution, supersample, resolution, supersample, 4)
    return blocks.mean((1, 3))


def cast(
    triangles: Float[Array, "f 3 3"], camera: Camera, height: int, width: int
) -> tuple[Int[Array, "h w"], Float[Array, "h w"]]:
    """What the rays of `cameras.rays(camera, height, width)` meet first.

    Returns:
        face: index of the nearest triangle, -1 where there is none.
        t: distance from the camera along the unit ray, infinite where there is no triangle.
    """
    y = 1 - (2 * jnp.arange(height) + 1) / height
    x = (2 * jnp.arange(width) + 1) / width - 1
    grid_y, grid_x = jnp.meshgrid(y, x, indexing="ij")
    affine = edge_functions(triangles, camera, width / height)
    inverse_depth, face = nearest(affine, grid_x.ravel(), grid_y.ravel())
    tan = jnp.tan(camera.fov_y / 2)
    secant = jnp.sqrt(1 + (grid_x * tan * width / height) ** 2 + (grid_y * tan) ** 2)
    t = secant * (1 + 3 * _GROW) / inverse_depth.reshape(height, width)
    return face.reshape(height, width), t


def edge_functions(
    triangles: Float[Array, "f 3 3"], camera: Camera, aspect: float
) -> Float[Array, "f 9"]:
    """Coefficients (a, b, c) of u_0, u_1 and s, each a x + b y + c with x, y in [-1, 1].

    u_2 is s - u_0 - u_1. All are those of slightly grown triangles, which makes s larger by the
    factor 1 + 3 _GROW. Degenerate triangles get zeros: s = 0 is no hit.
    """
    rotation = camera.camera_to_world[:3, :3]
    v0, v1, v2 = jnp.moveaxis(triangles - camera.camera_to_world[:3, 3], 1, 0)
    e01, e02, e12 = v1 - v0, v2 - v0, v2 - v1  # v_j x v_k = v_j x (v_k - v_j), with less rounding
    normal = jnp.cross(e01, e02)
    volume = (v0 * normal).sum(-1)
    size = jnp.linalg.norm(normal, axis=-1)
    solid = jnp.abs(volume) > 1e-7 * size
    scale = jnp.where(solid, 1 / jnp.where(solid, volume, 1.0), 0.0)
    s = normal * scale[:, None]
    u0 = jnp.cross(v1, e12) * scale[:, None] + _GROW * s
    u1 = jnp.cross(v2, -e02) * scale[:, None] + _GROW * s
    world = jnp.stack([u0, u1, (1 + 3 * _GROW) * s], 1)
    tan = jnp.tan(camera.fov_y / 2)
    local = jnp.einsum("fkj,ji->fki", world, rotation, precision="highest")
    return (local * jnp.stack([tan * aspect, tan, -jnp.ones_like(tan)])).reshape(-1, 9)


def nearest(
    affine: Float[Array, "f 9"], x: Float[Array, "p"], y: Float[Array, "p"]
) -> tuple[Float[Array, "p"], Int[Array, "p"]]:
    """Largest s over the faces met at each point, and its face: (0, -1) where none is met.

    Of equally near faces the first wins. Memory stays O(p): the loop walks over the faces, and
    its body handles a few of them, unrolled, in one pass over the points.
    """
    count = affine.shape[0]
    chunk = min(_UNROLL, max(count, 1))
    padded = jnp.pad(affine, ((0, -count % chunk), (0, 0)))

    def body(best, step):
        first, rows = step
        s_best, face = best
        for k in range(chunk):
            a, b, c = rows[k, 0::3], rows[k, 1::3], rows[k, 2::3]
            u0, u1, s = (a[i] * x + (b[i] * y + c[i]) for i in range(3))
            inside = jnp.minimum(jnp.minimum(u0, u1), s - u0 - u1) >= 0
            closer = inside & (s > s_best)
            s_best = jnp.where(closer, s, s_best)
            face = jnp.where(closer, first + k, face)
        return (s_best, face), None

    start = jnp.zeros_like(x), jnp.full(x.shape, -1, jnp.int32)
    firsts = jnp.arange(padded.shape[0] // chunk, dtype=jnp.int32) * chunk
    best, _ = jax.lax.scan(body, start, (firsts, padded.reshape(-1, chunk, 9)))
    return best


def shade(
    triangles: Float[Array, "f 3 3"], face_rgb: Float[Array, "f 3"], camera: Camera, lights: Lights
) -> Float[Array, "f 3"]:
    """Colour of each face as this camera sees it, clipped to [0, 1].

    face_rgb * (ambient + sum over lights of intensity * max(0, normal . direction)), where the
    normal is turned to the camera's side.
    """
    v0 = triangles[:, 0]
    normal = jnp.cross(triangles[:, 1] - v0, triangles[:, 2] - v0)
    normal = normal / jnp.maximum(jnp.linalg.norm(normal, axis=-1, keepdims=True), 1e-20)
    facing = ((camera.camera_to_world[:3, 3] - v0) * normal).sum(-1, keepdims=True)
    normal = jnp.where(facing < 0, -normal, normal)
    cosine = jnp.einsum("fi,li->fl", normal, lights.directions, precision="highest")
    shading = lights.ambient + jnp.maximum(cosine, 0) @ lights.intensities
    return jnp.clip(face_rgb * shading[:, None], 0, 1)
