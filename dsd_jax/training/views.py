"""Rendered views in device memory, and the pictures drawn from them.

Letters: n objects, v views of each (groups of four, 90 degrees apart), b pictures of a batch,
k palettes of an object, m prompt wordings, l tokens.
"""

import jax
import jax.numpy as jnp
from flax import struct

from dsd_jax.data.palettes import hue_rotate
from dsd_jax.rendering.scene import GREY


@struct.dataclass
class Views:
    """What the autoencoder trains on.

    Attributes:
        rgba: [n, v, h, w, 4] uint8, premultiplied alpha.
        weight: [n] how often an object is drawn, relative; 0 for padding.
    """

    rgba: jax.Array
    weight: jax.Array


def draw_objects(key, weight, b: int):
    """Indices [b] of objects, drawn with probability proportional to `weight` [n]."""
    return jax.random.categorical(key, jnp.log(weight), shape=(b,))


def composite(rgba, background=GREY, opacity: bool = False):
    """Premultiplied uint8 [..., 4] over `background` (0..1): [..., 3] in [0, 1].

    With `opacity` that stays, as a fourth channel.
    """
    rgba = rgba.astype(jnp.float32) / 255
    rgb = rgba[..., :3] + background * (1 - rgba[..., 3:])
    return jnp.concatenate([rgb, rgba[..., 3:]], -1) if opacity else rgb


def draw_pictures(key, views: Views, b: int):
    """A batch for the autoencoder [b, h, w, 4] in [-1, 1]: colours and opacity.

    Half keeps its palette, half gets a rotated hue; half stands on the project's grey, half on a
    random colour; a quarter is blurred and a quarter is haze, since early renderings of a 3D
    field are.
    """
    keys = jax.random.split(key, 9)
    index = draw_objects(keys[0], views.weight, b)
    view = jax.random.randint(keys[1], (b,), 0, views.rgba.shape[1])
    rgba = views.rgba[index, view].astype(jnp.float32) / 255
    angle = jax.random.uniform(keys[2], (b,), maxval=2 * jnp.pi)
    angle = jnp.where(jax.random.bernoulli(keys[3], 0.5, (b,)), angle, 0.0)
    colour = jax.random.uniform(keys[4], (b, 1, 1, 3))
    plain = jax.random.bernoulli(keys[5], 0.5, (b, 1, 1, 1))
    there = jax.random.uniform(keys[7], (b, 1, 1, 1))
    there = jnp.where(jax.random.bernoulli(keys[8], 0.75, there.shape), 1, there)
    alpha = rgba[..., 3:] * there
    rgb = jax.vmap(hue_rotate)(rgba[..., :3], angle) * there
    picture = rgb + jnp.where(plain, GREY, colour) * (1 - alpha)
    picture = jnp.concatenate([picture, alpha], -1)
    flip = jax.random.bernoulli(keys[6], 0.5, (b, 1, 1, 1))
    picture = jnp.where(flip, picture[:, :, ::-1], picture)
    return _blur(picture, b // 4) * 2 - 1


def _blur(pictures, count: int):
    """Halve and double again the resolution of the first `count` pictures."""
    _, h, w, c = pictures.shape
    half = pictures[:count].reshape(count, h // 2, 2, w // 2, 2, c).mean((2, 4))
    soft = jax.image.resize(half, (count, h, w, c), "bilinear")
    return jnp.concatenate([soft, pictures[count:]])
