"""Regularisers: small pure functions from a Rendering to a scalar that should be small.

Letters: h w pixels, s samples a ray, w_i weight, t_i distance, delta_i length of sample i.
Weights and schedules belong to the caller. Each is a mean over
pixels, so it does not depend on the resolution, except where it compares neighbouring pixels.
"""

import jax
import jax.numpy as jnp

from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.volume import Rendering


def orientation(rendering: Rendering) -> jax.Array:
    """Visible normals should face the camera (Ref-NeRF, Verbin et al. 2022, equation 11).

    Mean over pixels of sum_i w_i max(0, n_i . d)^2 with d the ray's direction; without normals at
    the samples the same of the surface normal, weighted by opacity. No gradient through weights.

    Raises:
        ValueError: the rendering has no normals.
    """
    normals = _need_normals(rendering, "orientation")
    if rendering.sample_normals is None:
        weights, directions = rendering.opacity, rendering.directions
    else:
        weights, normals = rendering.weights, rendering.sample_normals
        directions = rendering.directions[..., None, :]
    away = jnp.maximum(jnp.sum(normals * directions, -1), 0)
    pixels = rendering.opacity.size
    return jnp.sum(jax.lax.stop_gradient(weights) * jnp.square(away)) / pixels


def sparsity(rendering: Rendering) -> jax.Array:
    """Less matter: mean of sqrt(opacity^2 + 0.01) (threestudio's form of DreamFusion's loss)."""
    return jnp.mean(jnp.sqrt(jnp.square(rendering.opacity) + 0.01))


def opaque(rendering: Rendering) -> jax.Array:
    """Opacity 0 or 1: its mean binary entropy in nats; opacity is clipped to [1e-3, 1 - 1e-3]."""
    p = jnp.clip(rendering.opacity, 1e-3, 1 - 1e-3)
    return -jnp.mean(p * jnp.log(p) + (1 - p) * jnp.log1p(-p))


def z_variance(rendering: Rendering) -> jax.Array:
    """Thin surfaces: variance of depth along a ray (HiFA, Zhu et al. 2023, section 3.3).

    sum_i w_i (t_i - depth)^2 / opacity, meaned over the pixels with opacity above 1/2; 0 if there
    are none. Square world units.
    """
    weights = rendering.weights / jnp.maximum(rendering.opacity, 1e-6)[..., None]
    offset = rendering.distances - rendering.depth[..., None]
    variance = jnp.sum(weights * jnp.square(offset), -1)
    solid = rendering.opacity > 0.5
    return jnp.sum(jnp.where(solid, variance, 0)) / jnp.maximum(jnp.sum(solid), 1)


def convexity(rendering: Rendering, camera: Camera, cells: int = 8) -> jax.Array:
    """Shapes that bulge: minus the sine by which normals turn outward from cell to cell.

    After the authors' "naive convexity loss". The normal map is averaged down to cells x cells, in
    the camera's frame (x right, y up). From left to right the normals of a convex shape turn about
    +y, from top to bottom about +x: the loss is -(mean y(n_left x n_right) + mean
    x(n_top x n_bottom)). The authors take the world's vertical component of both products, which is
    the first term, for a level camera, and for the second has no clear meaning.

    Raises:
        ValueError: the rendering has no normals.
    """
    normals = _need_normals(rendering, "convexity")
    world_to_camera = camera.camera_to_world[:3, :3].T
    normals = jnp.einsum("ij,hwj->hwi", world_to_camera, normals, precision="highest")
    coarse = jax.image.resize(normals, (cells, cells, 3), "linear")
    across = jnp.cross(coarse[:, :-1], coarse[:, 1:])[..., 1]
    down = jnp.cross(coarse[:-1], coarse[1:])[..., 0]
    return -(jnp.mean(across) + jnp.mean(down))


def distortion(rendering: Rendering) -> jax.Array:
    """Compact matter along a ray (mip-NeRF 360, Barron et al. 2022, equation 15), in world units.

    Mean over pixels of sum_ij w_i w_j |t_i - t_j| + 1/3 sum_i w_i^2 delta_i, in O(s): samples are
    ordered front to back.
    """
    weights, distances = rendering.weights, rendering.distances
    before = jnp.cumsum(weights, -1) - weights
    moment_before = jnp.cumsum(weights * distances, -1) - weights * distances
    between = 2 * jnp.sum(weights * (distances * before - moment_before), -1)
    within = jnp.sum(jnp.square(weights) * rendering.deltas, -1) / 3
    return jnp.mean(between + within)


def entropy(rendering: Rendering) -> jax.Array:
    """Few samples that matter (InfoNeRF, Kim et al. 2022): entropy of weights along a ray, in nats.

    -sum_i p_i log p_i with p = w / opacity, times opacity (no gradient through that factor), so
    that empty rays do not count.
    """
    p = rendering.weights / jnp.maximum(rendering.opacity, 1e-6)[..., None]
    per_ray = -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-10)), -1)
    return jnp.mean(per_ray * jax.lax.stop_gradient(rendering.opacity))


def keep_in_ball(rendering: Rendering, camera: Camera, radius: float = 0.9) -> jax.Array:
    """Matter inside a ball: mean over pixels of sum_i w_i max(0, |x_i| - radius)^2."""
    origin = camera.camera_to_world[:3, 3]
    rays = rendering.directions[..., None, :] * rendering.distances[..., None]
    beyond = jnp.maximum(jnp.linalg.norm(origin + rays, axis=-1) - radius, 0)
    return jnp.mean(jnp.sum(rendering.weights * jnp.square(beyond), -1))


def total_variation(rendering: Rendering) -> jax.Array:
    """Even colours: mean |rgb_a - rgb_b| over the neighbouring pixels a, b inside the object.

    Inside means an opacity above 1/2; 0 if there are no such pairs. Per pixel, so a picture twice
    as fine has half of it.
    """
    solid = rendering.opacity > 0.5
    across = jnp.abs(jnp.diff(rendering.rgb, axis=1)), solid[:, 1:] & solid[:, :-1]
    down = jnp.abs(jnp.diff(rendering.rgb, axis=0)), solid[1:] & solid[:-1]
    total = sum(jnp.sum(jnp.where(inside[..., None], d, 0)) for d, inside in (across, down))
    pairs = sum(jnp.sum(inside) for _, inside in (across, down))
    return total / (3 * jnp.maximum(pairs, 1))


def normal_smoothness(rendering: Rendering, camera: Camera) -> jax.Array:
    """Smooth surfaces: mean change of the surface's slope from pixel to pixel, saturated.

    With z the expected depth along the optical axis, 1 / z is linear across the picture of a plane.
    Over three neighbouring pixels inside the object (opacity above 1/2), in rows and in columns,

        change = z |1/z_left - 2/z + 1/z_right| h / (2 tan(fov / 2)),
        loss = mean of change / (1 + change),

    where z^2 times the second difference is that of z, divided by a pixel's side at z. Costs no
    normals; edges between parts at different depths saturate and stay.
    """
    backward = camera.camera_to_world[:3, 2]
    z = -rendering.depth * jnp.einsum(
        "hwi,i->hw", rendering.directions, backward, precision="highest"
    )
    solid = rendering.opacity > 0.5
    z = jnp.where(solid, z, 1.0)
    pixels = rendering.opacity.shape[0] / (2 * jnp.tan(camera.fov_y / 2))

    def along(z, solid):
        inside = solid[:-2] & solid[1:-1] & solid[2:]
        change = z[1:-1] * jnp.abs(jnp.diff(1 / z, 2, axis=0)) * pixels
        return jnp.sum(jnp.where(inside, change / (1 + change), 0)), jnp.sum(inside)

    (down, rows), (across, columns) = along(z, solid), along(z.T, solid.T)
    return (down + across) / jnp.maximum(rows + columns, 1)


def _need_normals(rendering: Rendering, name: str) -> jax.Array:
    """The rendering's normals [h, w, 3]."""
    if rendering.normal is None:
        raise ValueError(f"{name} needs normals: call render(..., normals=analytic_normals)")
    return rendering.normal
