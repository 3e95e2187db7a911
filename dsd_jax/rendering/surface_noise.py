"""Noise that sticks to an object's surface (after Consistent Flow Distillation, arXiv 2501.05445).

Letters: v views, h w c latents, H W rendered pixels, k rays along each side of a latent pixel and
m = k^2 rays in it. Space is divided into cells, about as large as what one ray stands for at the
distance of the object. Every cell has Gaussian noise n(cell), a pure function of the seed. A
latent pixel whose rays meet the surface in cells x_1 ... x_m gets

    sum_a n(x_a) / sqrt(sum_ab [x_a = x_b]),

which has mean 0 and variance 1 however the rays fall into cells.
"""

from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from dsd_jax.rendering.cameras import Camera, rays
from dsd_jax.rendering.volume import Rendering

# Bits of a cell's number along one axis; further away, noise repeats.
_BITS = 10


def of_views(
    key: jax.Array, renderings: Rendering, camera: Camera, screen: Float[Array, "*v h w c"]
) -> Float[Array, "*v h w c"]:
    """The noise of views, no derivatives.

    Args:
        key: of the seed.
        renderings, camera: leaves with leading axis v.
        screen: noise where there is no matter; [h, w, c] if v = 1.
    """
    one = partial(of_view, key)
    noise = jax.vmap(one)(
        renderings.depth, renderings.opacity, camera, screen.reshape(-1, *screen.shape[-3:])
    )
    return noise.reshape(screen.shape)


def of_view(
    key: jax.Array,
    depth: Float[Array, "H W"],
    opacity: Float[Array, "H W"],
    camera: Camera,
    screen: Float[Array, "h w c"],
) -> Float[Array, "h w c"]:
    """The noise of one view; `screen` where the opacity is below 1/2.

    Args:
        depth: expected distance along the ray, resized like the opacity if H is no multiple of h.
    """
    h, w, c = screen.shape
    k = max(2, -(-depth.shape[0] // h))
    depth, opacity = jax.lax.stop_gradient((depth, opacity))
    matter = jax.image.resize(opacity, (k * h, k * w), "linear")
    depth = jax.image.resize(opacity * depth, matter.shape, "linear") / jnp.maximum(matter, 1e-6)
    origins, directions = rays(camera, *matter.shape)
    distance = jnp.linalg.norm(camera.camera_to_world[:3, 3])
    footprint = 2 * distance * jnp.tan(camera.fov_y / 2) / matter.shape[0]
    cells = cell_numbers(origins + depth[..., None] * directions, footprint)
    cells, matter = _group(cells, k), _group(matter, k)
    solid = (matter >= 0.5).astype(jnp.float32)
    total = jnp.einsum("hwm,hwmc->hwc", solid, cell_noise(key, cells, c), precision="highest")
    same = (cells[..., :, None] == cells[..., None, :]).astype(jnp.float32)
    pairs = jnp.einsum("hwa,hwb,hwab->hw", solid, solid, same, precision="highest")
    attached = total * jax.lax.rsqrt(jnp.maximum(pairs, 1.0))[..., None]
    return jnp.where(jnp.mean(matter, -1, keepdims=True) >= 0.5, attached, screen)


def cell_numbers(points: Float[Array, "*n 3"], size) -> Int[Array, "*n"]:
    """Number of the cell of side `size` around each point, repeating after 2^10 cells an axis."""
    cells = jnp.floor(points / size).astype(jnp.int32) & (2**_BITS - 1)
    return (cells[..., 0] << 2 * _BITS) | (cells[..., 1] << _BITS) | cells[..., 2]


def cell_noise(key: jax.Array, cells: Int[Array, "*n"], channels: int) -> Float[Array, "*n c"]:
    """Unit Gaussian noise of cells, a pure function of the key and the cell's number."""
    draw = jax.vmap(lambda cell: jax.random.normal(jax.random.fold_in(key, cell), (channels,)))
    return draw(cells.reshape(-1)).reshape(*cells.shape, channels)


def _group(x: Array, k: int) -> Array:
    """[k h, k w] -> [h, w, k^2]: the rays of each latent pixel."""
    return rearrange(x, "(h a) (w b) -> h w (a b)", a=k, b=k)
