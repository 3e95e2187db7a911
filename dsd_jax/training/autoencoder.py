"""Training of the autoencoder: reconstruction with an edge term, and a light KL penalty."""

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.training.views import Views, draw_pictures


def reconstruction_error(decoded, target):
    """Charbonnier distance of pictures [b, h, w, 3] and of their differences between neighbours."""
    error = decoded - target
    edges = jnp.mean(_charbonnier(jnp.diff(error, axis=1))) + jnp.mean(
        _charbonnier(jnp.diff(error, axis=2))
    )
    return jnp.mean(_charbonnier(error)) + 0.5 * edges


def _charbonnier(x, width: float = 0.02):
    return jnp.sqrt(jnp.square(x) + width**2) - width


def make_loss(model, batch: int, kl_weight: float = 3e-4):
    """Loss for `common.make_step`: (params, views, {}, key) -> (scalar, metrics)."""

    def loss(params, views: Views, constants, key):
        del constants
        key_batch, key_noise = jax.random.split(key)
        x = draw_pictures(key_batch, views, batch)
        mean, logvar = model.apply({"params": params}, x, method="encode")
        mean, logvar = mean.astype(jnp.float32), logvar.astype(jnp.float32)
        logvar = jnp.clip(logvar, -30.0, 20.0)
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key_noise, mean.shape)
        decoded = model.apply({"params": params}, z, method="decode").astype(jnp.float32)
        kl = 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(logvar) - 1 - logvar)
        error = reconstruction_error(decoded, x)
        metrics = {"error": error, "kl": kl, "mse": jnp.mean(jnp.square(decoded - x))}
        return error + kl_weight * kl, metrics

    return loss


def psnr(model, params, pictures, batch: int = 64) -> float:
    """Mean PSNR in dB of pictures [b, h, w, 3] in [0, 1] through the autoencoder's mean."""

    @jax.jit
    def mse(params, x):
        mean, _ = model.apply({"params": params}, x * 2 - 1, method="encode")
        decoded = model.apply({"params": params}, mean, method="decode").astype(jnp.float32)
        return jnp.mean(jnp.square(jnp.clip(decoded / 2 + 0.5, 0, 1) - x), (1, 2, 3))

    errors = [mse(params, pictures[i : i + batch]) for i in range(0, len(pictures), batch)]
    return float(np.mean(-10 * np.log10(np.concatenate(errors))))
