"""What keeps decoded pictures as sharp as real ones: a network that tries to tell them apart.

Patches are judged, as by Isola et al. 2017 (arXiv 1611.07004), by the hinge loss, and the
decoder's gradient from it has a share of the reconstruction's (Esser et al. 2021, 2012.09841).
Letters: b pictures of h w pixels and k channels.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

_TINY = 1e-12


class Adversary(nn.Module):
    """Pictures [b, h, w, k] to scores [b, h/4, w/4] of patches of 22 pixels: above 0 for real."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x) -> jax.Array:
        x = x.astype(self.dtype)
        for width, stride in ((32, 2), (64, 2), (128, 1)):
            x = nn.Conv(width, (4, 4) if stride == 2 else (3, 3), stride, dtype=self.dtype)(x)
            x = nn.GroupNorm(8, dtype=self.dtype)(x) if width > 32 else x
            x = nn.leaky_relu(x, 0.2)
        return nn.Conv(1, (3, 3), dtype=self.dtype)(x)[..., 0].astype(jnp.float32)


def hinge(real, decoded, weight):
    """The adversary's loss of its scores: real ones above 1, decoded ones below -1."""
    return _mean(nn.relu(1 - real) + nn.relu(1 + decoded), weight)


def sharpen(score, error, decoded, weight, share: float):
    """A scalar whose gradient is that of the scores of `decoded`, as long as `share` of `error`'s.

    Args:
        score: decoded pictures [b, h, w, k] to scores [b, h/4, w/4].
        error: likewise to the scalar that says how wrong they are.
        decoded: the pictures.
        weight: of each score.
        share: length of this gradient over that of `error`, both by the pictures.
    """
    unseen = jax.lax.stop_gradient(decoded)
    wanted = jax.grad(lambda x: -_mean(score(x), weight))(unseen)
    length = jnp.linalg.norm(jax.grad(error)(unseen).ravel())
    scale = share * length / jnp.maximum(jnp.linalg.norm(wanted.ravel()), _TINY)
    return jnp.sum(jax.lax.stop_gradient(scale * wanted) * decoded)


def _mean(values, weight):
    return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1)


def where_objects_are(opacity):
    """Weights [b, h/4, w/4] of patches: 1 where opacity [b, h, w] is not 0 within, else 0."""
    return (nn.max_pool(opacity[..., None], (12, 12), (4, 4), "SAME")[..., 0] > 0) * 1.0
