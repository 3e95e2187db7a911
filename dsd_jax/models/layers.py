"""Layers shared by the UNet and the VAE.

Letters: b batch, h w height and width, c channels, e width of the time embedding.
Everything is NHWC. A parameter is named after its PyTorch key with `.N` written `_N`, so that
`keys.py` can translate mechanically.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

_zeros = nn.initializers.zeros
_lecun = nn.initializers.lecun_normal()


def group_norm(groups: int, epsilon: float, dtype, name: str) -> nn.GroupNorm:
    """GroupNorm over [b, h, w, c] whose statistics are float32 whatever `dtype` is."""
    return nn.GroupNorm(groups, epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


def conv(features: int, size: int, dtype, name: str, zero: bool = False) -> nn.Conv:
    """A `size` x `size` convolution that keeps height and width; `zero` starts it at zero."""
    init = _zeros if zero else _lecun
    pad = size // 2
    return nn.Conv(
        features, (size, size), padding=((pad, pad),) * 2, dtype=dtype, kernel_init=init, name=name
    )


def timestep_features(t, features: int, flip_sin_to_cos: bool, freq_shift: float) -> jax.Array:
    """Sinusoids [b, features] of the timesteps t [b], float32.

    Frequencies are 10000^(-i / (features / 2 - freq_shift)), as in diffusers' `Timesteps`.
    `features` is even.
    """
    half = features // 2
    exponent = jnp.arange(half, dtype=jnp.float32) / (half - freq_shift)
    angles = jnp.asarray(t, jnp.float32)[:, None] * jnp.exp(-math.log(10000.0) * exponent)
    parts = [jnp.sin(angles), jnp.cos(angles)]
    return jnp.concatenate(parts[::-1] if flip_sin_to_cos else parts, -1)


class EmbeddingMLP(nn.Module):
    """Two linear layers with a SiLU between: [b, anything] -> [b, features]."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = nn.silu(nn.Dense(self.features, dtype=self.dtype, name="linear_1")(x))
        return nn.Dense(self.features, dtype=self.dtype, name="linear_2")(x)


class ResnetBlock(nn.Module):
    """Residual block [b, h, w, c] -> [b, h, w, features], shifted by an embedding [b, e] if given.

    `zero` starts the second convolution at zero, so that the block starts as its shortcut.
    """

    features: int
    groups: int
    epsilon: float
    dtype: jnp.dtype = jnp.float32
    zero: bool = False

    @nn.compact
    def __call__(self, x, embedding=None):
        y = nn.silu(group_norm(self.groups, self.epsilon, self.dtype, "norm1")(x))
        y = conv(self.features, 3, self.dtype, "conv1")(y)
        if embedding is not None:
            shift = nn.Dense(self.features, dtype=self.dtype, name="time_emb_proj")
            y = y + shift(nn.silu(embedding))[:, None, None, :]
        y = nn.silu(group_norm(self.groups, self.epsilon, self.dtype, "norm2")(y))
        y = conv(self.features, 3, self.dtype, "conv2", self.zero)(y)
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, self.dtype, "conv_shortcut")(x)
        return x + y


class Downsample(nn.Module):
    """Strided 3 x 3 convolution, [b, h, w, c] -> [b, h / 2, w / 2, c].

    `padding` is (before, after) for both axes: (1, 1) in the UNet, (0, 1) in the VAE.
    """

    padding: tuple[int, int]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        layer = nn.Conv(
            x.shape[-1], (3, 3), (2, 2), (self.padding,) * 2, dtype=self.dtype, name="conv"
        )
        return layer(x)


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3 x 3 convolution: [b, h, w, c] -> [b, 2h, 2w, c]."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        b, h, w, c = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
        return conv(c, 3, self.dtype, "conv")(x.reshape(b, 2 * h, 2 * w, c))
