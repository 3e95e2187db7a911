"""Gaussian splats (Kerbl et al. 2023), rasterised tile by tile.

Letters: n splats, t tiles of tile x tile pixels, k splats a tile, h w pixels.

In a picture a splat is a Gaussian about its centre u with the covariance S' = J W S W^T J^T + 0.3,
in pixels (Zwicker et al. 2001; 0.3 is what viewers blur by). From front to back

    alpha_i(p) = o_i exp(-(p - u_i)^T S'_i^-1 (p - u_i) / 2)

is to `volume.absorption` an optical depth of -log(1 - alpha_i): splats and fields blend alike.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsd_jax.fields.background import GREY
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.volume import absorption

# Of all implementations: variance in pixels that is added, the largest alpha, the least drawn.
_BLUR, _MOST, _LEAST = 0.3, 0.99, 1 / 255
# Splats nearer to the camera than this are not drawn.
_NEAR = 0.05
# Tiles at a time: their splats fit a CPU's cache.
_TILES_AT_ONCE = 16


class Splats(NamedTuple):
    """n Gaussians without view dependence, in arrays of JAX or NumPy.

    Attributes:
        centres: [n, 3] world coordinates.
        log_scales: [n, 3] log of the standard deviations along the splat's own axes.
        rotations: [n, 4] quaternions, w x y z, of any length but 0: own axes to world.
        logits: [n] of the opacity.
        colours: [n, 3] sRGB; what lies outside [0, 1] is cut off.
    """

    centres: Float[Array | np.ndarray, "n 3"]
    log_scales: Float[Array | np.ndarray, "n 3"]
    rotations: Float[Array | np.ndarray, "n 4"]
    logits: Float[Array | np.ndarray, "n"]
    colours: Float[Array | np.ndarray, "n 3"]


class Flat(NamedTuple):
    """Splats as a camera sees them, from front to back.

    Attributes:
        places: [n, 2] of the centres, in pixels right and down of the upper left corner.
        precisions: [n, 3] xx, xy, yy of S'^-1.
        opacities: [n], 0 of those that are not drawn.
        colours: [n, 3].
    """

    places: Float[Array, "n 2"]
    precisions: Float[Array, "n 3"]
    opacities: Float[Array, "n"]
    colours: Float[Array, "n 3"]


def covariances(splats: Splats) -> Float[Array, "n 3 3"]:
    """S = R diag(scale^2) R^T, in world coordinates."""
    w, x, y, z = jnp.moveaxis(
        splats.rotations / jnp.linalg.norm(splats.rotations, axis=-1, keepdims=True), -1, 0
    )
    rotation = jnp.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ], -1).reshape(-1, 3, 3)  # fmt: skip
    axes = rotation * jnp.exp(splats.log_scales)[:, None]
    return jnp.einsum("nij,nkj->nik", axes, axes, precision="highest")


def flatten(splats: Splats, camera: Camera, size: int) -> Flat:
    """Project onto a picture of size x size pixels; the order is not differentiated."""
    pose = camera.camera_to_world
    turned = partial(jnp.einsum, precision="highest")
    x, y, back = turned("ni,ij->nj", splats.centres - pose[:3, 3], pose[:3, :3]).T
    depth, focal = -back, size / 2 / jnp.tan(camera.fov_y / 2)
    drawn = depth > _NEAR
    safe = jnp.where(drawn, depth, 1.0)
    places = size / 2 + focal * jnp.stack([x, -y], -1) / safe[:, None]
    zero = jnp.zeros_like(safe)
    # d(right, down) / d(right, up, back)
    slope = focal / safe[:, None, None] * jnp.stack(
        [jnp.stack([zero + 1, zero, x / safe], -1), jnp.stack([zero, zero - 1, -y / safe], -1)], 1
    )  # fmt: skip
    axes = turned("nij,kj->nik", slope, pose[:3, :3])
    spread = turned("nij,njk,nlk->nil", axes, covariances(splats), axes)
    xx, xy, yy = spread[:, 0, 0] + _BLUR, spread[:, 0, 1], spread[:, 1, 1] + _BLUR
    precisions = jnp.stack([yy, -xy, xx], -1) / (xx * yy - xy * xy)[:, None]
    opacities = jnp.where(drawn, jax.nn.sigmoid(splats.logits), 0.0)
    flat = Flat(places, precisions, opacities, jnp.clip(splats.colours, 0, 1))
    order = jnp.argsort(jax.lax.stop_gradient(depth))
    return jax.tree.map(lambda leaf: leaf[order], flat)


def members(
    flat: Flat, size: int, tile: int, most: int
) -> tuple[Int[Array, "t k"], Int[Array, "t"]]:
    """The splats of every tile, the `most` nearest ones, and how many there are.

    A splat is drawn up to three standard deviations from its centre, and in the 3 x 3 tiles about
    it at most. Numbers in `members` beyond those of a tile are n.
    """
    side, n = size // tile, len(flat.opacities)
    xx, xy, yy = flat.precisions.T
    reach = 3 * jnp.sqrt(jnp.stack([yy, xx], -1) / (xx * yy - xy * xy)[:, None])
    around = jnp.stack(jnp.meshgrid(*2 * [jnp.arange(-1, 2)]), -1).reshape(-1, 2)
    at = jnp.floor(flat.places / tile).astype(jnp.int32)[:, None] + around
    away = jnp.abs(flat.places[:, None] - (at + 0.5) * tile) - tile / 2
    drawn = (away < reach[:, None]) & (at >= 0) & (at < side)
    drawn = drawn.all(-1) & (flat.opacities[:, None] >= _LEAST)
    own = jnp.where(drawn, at[..., 1] * side + at[..., 0], side * side).reshape(-1)
    order = jnp.argsort(own, stable=True)
    starts = jnp.searchsorted(own[order], jnp.arange(side * side + 1))
    counts = starts[1:] - starts[:-1]
    slot = jnp.arange(most)
    pairs = order[jnp.minimum(starts[:-1, None] + slot, 9 * n - 1)]
    return jnp.where(slot < counts[:, None], pairs // 9, n), counts


def draw(
    flat: Flat, inside: Int[Array, "t k"], tiles: Int[Array, "t"], size: int, tile: int,
    background: Array | float = GREY,
) -> Float[Array, "t tile tile 4"]:  # fmt: skip
    """Colour over the background, and opacity, of tiles by their numbers and `members`."""
    side = size // tile
    corner = jnp.stack([tiles % side, tiles // side], -1) * tile
    step = jnp.arange(tile) + 0.5
    down, right = jnp.meshgrid(step, step, indexing="ij")
    pixels = corner[:, None] + jnp.stack([right.ravel(), down.ravel()], -1)
    own = jax.tree.map(lambda leaf: leaf.at[inside].get(mode="fill", fill_value=0), flat)
    x, y = jnp.moveaxis(pixels[:, :, None] - own.places[:, None], -1, 0)
    xx, xy, yy = jnp.moveaxis(own.precisions[:, None], -1, 0)
    power = -0.5 * (xx * x * x + yy * y * y) - xy * x * y
    alpha = jnp.minimum(own.opacities[:, None] * jnp.exp(power), _MOST)
    depths = -jnp.log1p(-jnp.where(alpha < _LEAST, 0.0, alpha))
    weights, opacity = absorption(depths, jnp.ones(()))
    rgb = jnp.einsum("tpk,tkc->tpc", weights, own.colours)
    opacity = opacity[..., None]
    found = jnp.concatenate([rgb + (1 - opacity) * background, opacity], -1)
    return found.reshape(-1, tile, tile, 4)


def render(
    splats: Splats,
    camera: Camera,
    size: int,
    tile: int = 8,
    most: int = 1024,
    background: Array | float = GREY,
) -> Float[Array, "h w 4"]:
    """A whole picture of size x size pixels, colour over the background and opacity.

    Args:
        tile: side of a tile; divides size, and no standard deviation should be above a third of it.
        most: splats that a tile shows; those further away are left out.
    """
    flat = flatten(splats, camera, size)
    inside, _ = members(flat, size, tile, most)
    side = size // tile
    drawn = jax.lax.map(
        lambda one: draw(flat, one[0][None], one[1][None], size, tile, background)[0],
        (inside, jnp.arange(side * side)), batch_size=_TILES_AT_ONCE,
    )  # fmt: skip
    return drawn.reshape(side, side, tile, tile, 4).swapaxes(1, 2).reshape(size, size, 4)
