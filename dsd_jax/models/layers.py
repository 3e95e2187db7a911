"""Layers shared by the UNet and the VAE.

Letters: b batch, h w height and width, c channels, e width of the time embedding.
Everything is NHWC. A parameter is named after its PyTorch key with `.N` written `_N`, so that
`keys.py` can translate mechanically.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn


class GroupNorm(nn.Module):
    """Normalises groups of consecutive channels of x [b, ..., c] over all places; -> the same.

    Statistics are float32 whatever `dtype` is, in one pass: variance of the difference to the
    first place, which loses no digits when the mean is large. Reducing axis by axis and groups
    last costs half of flax's GroupNorm on a CPU (a tenth of a small UNet's time).
    """

    groups: int
    epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        b, c = x.shape[0], x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        places = (1,) * (x.ndim - 2)

        def group_mean(y):
            for axis in range(y.ndim - 2, 0, -1):
                y = y.mean(axis)
            y = y.reshape(b, self.groups, c // self.groups).mean(-1)
            return jnp.repeat(y, c // self.groups, -1).reshape(b, *places, c)

        x = x.astype(jnp.float32)
        first = x[(slice(None), *(slice(1) for _ in places))]
        x = x - jax.lax.stop_gradient(group_mean(first))
        mean = group_mean(x)
        variance = jnp.maximum(group_mean(x * x) - mean * mean, 0)
        gain = jax.lax.rsqrt(variance + self.epsilon) * scale.astype(jnp.float32)
        return ((x - mean) * gain + bias.astype(jnp.float32)).astype(self.dtype)


def conv(features: int, size: int, dtype, name: str) -> nn.Conv:
    """A `size` x `size` convolution (size odd) that keeps height and width."""
    pad = size // 2
    return nn.Conv(features, (size, size), padding=((pad, pad),) * 2, dtype=dtype, name=name)


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
    """Residual block [b, h, w, c] -> [b, h, w, features]; an embedding [b, e] shifts its middle."""

    features: int
    groups: int
    epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, embedding=None):
        y = nn.silu(GroupNorm(self.groups, self.epsilon, self.dtype, name="norm1")(x))
        y = conv(self.features, 3, self.dtype, "conv1")(y)
        if embedding is not None:
            shift = nn.Dense(self.features, dtype=self.dtype, name="time_emb_proj")
            y = y + shift(nn.silu(embedding))[:, None, None, :]
        y = nn.silu(GroupNorm(self.groups, self.epsilon, self.dtype, name="norm2")(y))
        y = conv(self.features, 3, self.dtype, "conv2")(y)
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
