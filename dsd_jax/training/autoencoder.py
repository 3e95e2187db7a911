"""Training of the autoencoder: reconstruction, a light KL penalty, and an adversary."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.priors.latent import sees_opacity
from dsd_jax.training.adversary import Adversary, hinge, sharpen, where_objects_are
from dsd_jax.training.views import Views, composite, draw_pictures


def reconstruction_error(decoded, target):
    """Charbonnier distance of pictures [b, h, w, k] and of their differences between neighbours."""
    error = decoded - target
    edges = jnp.mean(_charbonnier(jnp.diff(error, axis=1))) + jnp.mean(
        _charbonnier(jnp.diff(error, axis=2))
    )
    return jnp.mean(_charbonnier(error)) + 0.5 * edges


def _charbonnier(x, width: float = 0.02):
    return jnp.sqrt(jnp.square(x) + width**2) - width


def start(model, vae: dict, key) -> dict:
    """The parameters that are trained: the autoencoder's, and a fresh adversary's."""
    pictures = jnp.zeros((1, 8, 8, model.config.in_channels))
    return {"vae": vae, "adversary": Adversary(model.dtype).init(key, pictures)["params"]}


def make_loss(model, batch: int, sharpness: float = 0.5, kl_weight: float = 1e-5):
    """Loss for `common.make_step`: (params, views, {}, key) -> (scalar, metrics).

    The parameters are those of `start`; `sharpness` is the adversary's share in the decoder's
    gradient, see `adversary.sharpen`.
    """

    def judge(params, pictures) -> jax.Array:
        scores = Adversary(model.dtype).apply({"params": params}, pictures)
        return jnp.asarray(scores)

    def loss(params, views: Views, constants, key):
        del constants
        key_batch, key_noise = jax.random.split(key)
        x = draw_pictures(key_batch, views, batch)
        weight = where_objects_are(x[..., 3] + 1)
        x = x[..., : model.config.in_channels]
        vae, known = {"params": params["vae"]}, jax.lax.stop_gradient(params["adversary"])
        mean, logvar = model.apply(vae, x, method="encode")
        mean, logvar = mean.astype(jnp.float32), logvar.astype(jnp.float32)
        logvar = jnp.clip(logvar, -30.0, 20.0)
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key_noise, mean.shape)
        decoded = model.apply(vae, z, method="decode").astype(jnp.float32)
        kl = 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(logvar) - 1 - logvar)
        error = reconstruction_error(decoded, x)
        sharper = sharpen(
            lambda y: judge(known, y),
            lambda y: reconstruction_error(y, x), decoded, weight, sharpness,
        )  # fmt: skip
        pictures = jnp.concatenate([x, jax.lax.stop_gradient(decoded)])
        real, drawn = jnp.split(judge(params["adversary"], pictures), 2)
        told_apart = hinge(real, drawn, weight)
        mse = jnp.mean(jnp.square(decoded - x))
        metrics = {"error": error, "kl": kl, "mse": mse, "told_apart": told_apart}
        return error + kl_weight * kl + sharper + 0.01 * told_apart, metrics

    return loss


class Quality(NamedTuple):
    """How well pictures come through the autoencoder.

    Attributes:
        psnr_db: of colours in [0, 1], mean over pictures.
        opacity_iou: where opacity is above 3/8 (pictures of four samples a pixel have multiples of
            1/4), mean over pictures; None without opacity.
    """

    psnr_db: float
    opacity_iou: float | None


def quality(model, params, rgba, batch: int = 64) -> Quality:
    """Of premultiplied uint8 pictures [b, h, w, 4] on grey, through the posterior's mean."""
    opacity = sees_opacity(model)

    @jax.jit
    def through(params, rgba):
        x = composite(rgba, opacity=opacity)
        mean, _ = model.apply({"params": params}, x * 2 - 1, method="encode")
        decoded = model.apply({"params": params}, mean, method="decode").astype(jnp.float32)
        decoded = jnp.clip(decoded / 2 + 0.5, 0, 1)
        error = jnp.mean(jnp.square(decoded - x)[..., :3], (1, 2, 3))
        found, there = decoded[..., -1] > 0.375, rgba[..., 3] > 0.375 * 255
        shared, either = (jnp.sum(m, (1, 2)) for m in (found & there, found | there))
        return error, shared / jnp.maximum(either, 1)

    parts = [through(params, rgba[i : i + batch]) for i in range(0, len(rgba), batch)]
    errors, ious = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    return Quality(float(np.mean(-10 * np.log10(errors))), float(ious.mean()) if opacity else None)
