"""Training of the denoiser and the text encoder, jointly, on latents.

The mix is MVDream's (2308.16512): groups of four views with cameras and cross-view attention,
single views with a camera, and single views without one whose prompt names the side it shows.
Letters: n objects, v views of each, k palettes, m wordings, l tokens, b groups of four views.
"""

import jax
import jax.numpy as jnp
from flax import struct

from dsd_jax.schedule import NoiseSchedule
from dsd_jax.training.common import draw_timesteps
from dsd_jax.training.views import draw_objects

VIEWS = 4


@struct.dataclass
class Latents:
    """What the denoiser trains on.

    Attributes:
        latents: [n, v, k, h, w, c] float16, not yet scaled; v counts groups of four
            neighbouring views, 90 degrees apart.
        camera: [n, v, 16] the denoiser's camera input.
        phrase: [n, v] which view phrase fits (1..4; 0 is none).
        tokens: [n, k, m, 5, l] prompts; the fourth axis is the view phrase.
        weight: [n] how often an object is drawn, relative; 0 for padding.
    """

    latents: jax.Array
    camera: jax.Array
    phrase: jax.Array
    tokens: jax.Array
    weight: jax.Array


@struct.dataclass
class Batch:
    """Groups of four views: latents [b, 4, h, w, c], camera [b, 4, 16], tokens [b, 4, l]."""

    latents: jax.Array
    camera: jax.Array
    tokens: jax.Array


def draw_groups(key, data: Latents, empty, b: int, own_palette: float, dropout: float) -> Batch:
    """A batch of b groups; tokens carry no view phrase, and `empty` [l] where dropped."""
    keys = jax.random.split(key, 6)
    index = draw_objects(keys[0], data.weight, b)
    group = jax.random.randint(keys[1], (b, 1), 0, data.latents.shape[1] // VIEWS)
    view = group * VIEWS + jnp.arange(VIEWS)
    palettes = data.latents.shape[2]
    palette = jax.random.randint(keys[2], (b,), 0, palettes)
    palette = jnp.where(jax.random.bernoulli(keys[3], own_palette, (b,)), 0, palette)
    wording = jax.random.randint(keys[4], (b,), 0, data.tokens.shape[2])
    dropped = jax.random.bernoulli(keys[5], dropout, (b, 1))
    tokens = data.tokens[index, palette, wording, 0]
    tokens = jnp.where(dropped, empty, tokens)[:, None]
    return Batch(
        latents=data.latents[index[:, None], view, palette[:, None]].astype(jnp.float32),
        camera=data.camera[index[:, None], view],
        tokens=jnp.broadcast_to(tokens, (b, VIEWS, tokens.shape[-1])),
    )


def draw_singles(key, data: Latents, empty, b: int, own_palette: float, dropout: float) -> Batch:
    """A batch of 4 b unrelated views, laid out as b rows of four.

    The first half of each row comes with its camera; the second half has a camera of zeros, which
    the denoiser reads as none, and four times in five a prompt that names the view.
    """
    keys = jax.random.split(key, 7)
    shape = (b, VIEWS)
    index = draw_objects(keys[0], data.weight, b * VIEWS).reshape(shape)
    view = jax.random.randint(keys[1], shape, 0, data.latents.shape[1])
    palette = jax.random.randint(keys[2], shape, 0, data.latents.shape[2])
    palette = jnp.where(jax.random.bernoulli(keys[3], own_palette, shape), 0, palette)
    wording = jax.random.randint(keys[4], shape, 0, data.tokens.shape[2])
    with_camera = jnp.arange(VIEWS) < VIEWS // 2
    named = jax.random.bernoulli(keys[5], 0.8, shape) & ~with_camera
    phrase = jnp.where(named, data.phrase[index, view], 0)
    tokens = data.tokens[index, palette, wording, phrase]
    dropped = jax.random.bernoulli(keys[6], dropout, (*shape, 1))
    return Batch(
        latents=data.latents[index, view, palette].astype(jnp.float32),
        camera=jnp.where(with_camera[:, None], data.camera[index, view], 0.0),
        tokens=jnp.where(dropped, empty, tokens),
    )


def make_losses(
    unet,
    text_encoder,
    schedule: NoiseSchedule,
    groups: int,
    own_palette: float = 0.5,
    dropout: float = 0.12,
    shared_noise: float = 0.5,
):
    """Losses for `common.make_step`, of groups of four views and of single views.

    Each is half the mean squared error of the predicted noise.

    The constants are `empty`, the tokens [l] of the empty prompt, and `scaling`, which brings the
    latents to unit deviation. t is drawn by `common.draw_timesteps`.

    `groups` groups of four views and as many single views (4 x `groups`) make a batch. In a share
    `shared_noise` of the groups all four views get the same noise, which is how score distillation
    will use one noise per object.
    """

    def predict(params, batch: Batch, x_t, t, num_views):
        b = batch.tokens.shape[0]
        distinct = batch.tokens[:, :1] if num_views > 1 else batch.tokens
        text = text_encoder.apply({"params": params["text_encoder"]}, _flat(distinct))
        text = text.reshape(b, distinct.shape[1], *text.shape[1:])
        text = jnp.broadcast_to(text, (b, VIEWS, *text.shape[2:]))
        return unet.apply(
            {"params": params["unet"]},
            _flat(x_t),
            _flat(t),
            _flat(text),
            _flat(batch.camera),
            num_views=num_views,
        ).reshape(x_t.shape)

    def error(params, key, batch: Batch, scaling, share, num_views):
        key_noise, key_t, key_share = jax.random.split(key, 3)
        b = batch.latents.shape[0]
        x0 = batch.latents * scaling
        noise = jax.random.normal(key_noise, x0.shape)
        shared = jax.random.bernoulli(key_share, share, (b, 1, 1, 1, 1))
        noise = jnp.where(shared, noise[:, :1], noise)
        shape = (b, 1) if num_views > 1 else (b, VIEWS)
        t = draw_timesteps(key_t, schedule.num_train_timesteps, shape)
        t = jnp.broadcast_to(t, (b, VIEWS))
        x_t = schedule.add_noise(x0, noise, t)
        return jnp.mean(jnp.square(predict(params, batch, x_t, t, num_views) - noise))

    def multi(params, data: Latents, constants, key):
        key_batch, key = jax.random.split(key)
        batch = draw_groups(key_batch, data, constants["empty"], groups, own_palette, dropout)
        found = error(params, key, batch, constants["scaling"], shared_noise, VIEWS)
        return 0.5 * found, {"multi_view": found}

    def single(params, data: Latents, constants, key):
        key_batch, key = jax.random.split(key)
        batch = draw_singles(key_batch, data, constants["empty"], groups, own_palette, dropout)
        found = error(params, key, batch, constants["scaling"], 0.0, 1)
        return 0.5 * found, {"single_view": found}

    return multi, single


def _flat(x):
    return x.reshape(-1, *x.shape[2:])
