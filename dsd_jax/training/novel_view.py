"""Training of the prior of novel views: denoiser, vision encoder and `cc_projection`, jointly.

A pair is two views of one object in one palette, on white: one is known, the other is denoised.
Letters: n objects, v views of each, k palettes, b pairs of a batch.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dsd_jax.data.objects import Objects, held_out
from dsd_jax.data.palettes import TINTS
from dsd_jax.data.pictures import ViewPlan
from dsd_jax.models.clip_vision import preprocess
from dsd_jax.models.zero123 import ImageNetworks
from dsd_jax.priors.zero123 import pose_vector, project
from dsd_jax.rendering.scene import WHITE
from dsd_jax.schedule import NoiseSchedule
from dsd_jax.training.common import draw_timesteps
from dsd_jax.training.corpus import make_palettes, object_weights, recolour
from dsd_jax.training.views import draw_objects


@struct.dataclass
class Pairs:
    """What the pairs are drawn from.

    Attributes:
        rgba: [n, v, H, W, 4] uint8, premultiplied alpha.
        latents: [n, v, k, h, w, c] float16 of the views in each palette on white, not scaled.
        angle, tint: [n, k] and [n, k, 3], the palettes.
        azimuth, elevation: [n, v] radians; the distance is always the same.
        weight: [n] how often an object is drawn, relative; 0 for padding and what is held out.
    """

    rgba: jax.Array
    latents: jax.Array
    angle: jax.Array
    tint: jax.Array
    azimuth: jax.Array
    elevation: jax.Array
    weight: jax.Array


@struct.dataclass
class Batch:
    """Pairs: picture [b, H, W, 3] in [0, 1] and latents [b, h, w, c] not scaled; pose [b, 4]."""

    picture: jax.Array
    known: jax.Array
    target: jax.Array
    pose: jax.Array


def palettes(rng: np.random.Generator, data: Objects, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles [n, k] and tints [n, k, 3]: the object's own palette first, then others.

    What has no colour of its own is always tinted, and never white, which white would hide.
    """
    drawn = make_palettes(rng, data, k + 1, set(TINTS) - {"white"})
    shift = np.asarray(data.colourless, int)[:, None]
    chosen = shift + np.arange(k)
    rows = np.arange(len(data))[:, None]
    return drawn.angle[rows, chosen], drawn.tint[rows, chosen]


def weights(data: Objects, padded: int) -> np.ndarray:
    """How often each object is drawn [padded], as `object_weights` but 0 for what is held out."""
    result = object_weights(data.category, padded)
    result[: len(data)] *= ~held_out(data.caption)
    return result


def shapes(networks: ImageNetworks, views: ViewPlan, data: Objects, indices, k: int) -> Pairs:
    """The pairs of the views of `indices` [n] in k palettes; pictures and palettes are shapes."""
    n, v = len(indices), views.azimuth.shape[1]
    vae, latent = networks.vae.config, networks.unet.config.sample_size
    side = latent * vae.factor
    fields: dict[str, Any] = {
        "rgba": jax.ShapeDtypeStruct((n, v, side, side, 4), jnp.uint8),
        "latents": jax.ShapeDtypeStruct(
            (n, v, k, latent, latent, vae.latent_channels), jnp.float16
        ),
        "angle": jax.ShapeDtypeStruct((n, k), jnp.float32),
        "tint": jax.ShapeDtypeStruct((n, k, 3), jnp.float32),
        "azimuth": views.azimuth[indices],
        "elevation": views.elevation[indices],
        "weight": weights(data, n),
    }
    return Pairs(**fields)


def draw_pairs(key, data: Pairs, b: int) -> Batch:
    """A batch of b pairs; a view may meet itself."""
    keys = jax.random.split(key, 3)
    index = draw_objects(keys[0], data.weight, b)
    known, target = jax.random.randint(keys[1], (2, b), 0, data.rgba.shape[1])
    palette = jax.random.randint(keys[2], (b,), 0, data.angle.shape[1])
    look = data.angle[index, palette], data.tint[index, palette]
    pictures = jax.vmap(partial(recolour, background=WHITE))(data.rgba[index, known], *look)
    pose = pose_vector(
        data.elevation[index, known] - data.elevation[index, target],
        data.azimuth[index, target] - data.azimuth[index, known],
        jnp.zeros(b),
    )
    return Batch(
        picture=pictures / 2 + 0.5,
        known=data.latents[index, known, palette].astype(jnp.float32),
        target=data.latents[index, target, palette].astype(jnp.float32),
        pose=pose,
    )


def context(networks: ImageNetworks, params, batch: Batch):
    """What the denoiser is told of the pictures and the poses, [b, 1, d], float32."""
    encoder = networks.image_encoder
    seen = jax.vmap(partial(preprocess, side=encoder.config.image_size))(batch.picture)
    embedding = jnp.asarray(encoder.apply({"params": params["image_encoder"]}, seen), jnp.float32)
    return project(params["cc_projection"], embedding[:, None], batch.pose)


def make_loss(
    networks: ImageNetworks,
    schedule: NoiseSchedule,
    pairs: int,
    dropout: float = 0.1,
    noisy_weight: float = 1.0,
):
    """Loss for `common.make_step`: mean squared error of the predicted noise.

    It counts min(1 / alpha_t^2, `noisy_weight`) times. There are no constants. t is drawn by
    `common.draw_timesteps`. In a share `dropout` of the `pairs` of a batch the context and the
    known latent are zeros, which is what guidance starts from.
    """
    scaling = networks.vae.config.scaling_factor

    def loss(params, data: Pairs, constants, key):
        del constants
        keys = jax.random.split(key, 4)
        batch = draw_pairs(keys[0], data, pairs)
        told = jax.random.bernoulli(keys[1], 1 - dropout, (pairs, 1, 1))
        t = draw_timesteps(keys[2], schedule.num_train_timesteps, (pairs,))
        noise = jax.random.normal(keys[3], batch.target.shape)
        x_t = schedule.add_noise(batch.target * scaling, noise, t)
        inputs = jnp.concatenate([x_t, told[..., None] * batch.known], -1)
        text = told * context(networks, params, batch)
        prediction = networks.unet.apply({"params": params["unet"]}, inputs, t, text)
        squares = jnp.mean(jnp.square(jnp.asarray(prediction, jnp.float32) - noise), (1, 2, 3))
        late = t >= schedule.num_train_timesteps // 2
        noisy = jnp.sum(squares * late) / jnp.maximum(jnp.sum(late), 1)
        counted = jnp.minimum(1 / schedule.alphas_cumprod[t], noisy_weight)
        return jnp.mean(counted * squares), {"error": jnp.mean(squares), "noisy_half": noisy}

    return loss
