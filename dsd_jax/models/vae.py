"""The variational autoencoder of latent diffusion (diffusers' AutoencoderKL).

Letters: b batch, H W pixels, h w latent pixels, c latent channels. NHWC; parameters are named
after diffusers' keys (see `keys.py`).
"""

import jax.numpy as jnp
from flax import linen as nn

from dsd_jax.models.attention import Attention
from dsd_jax.models.config import VAEConfig
from dsd_jax.models.layers import Downsample, GroupNorm, ResnetBlock, Upsample, conv

_EPSILON = 1e-6


class _Stage(nn.Module):
    """`layers` residual blocks, then `resample` ("down", "up" or None)."""

    features: int
    layers: int
    groups: int
    resample: str | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        for i in range(self.layers):
            name = f"resnets_{i}"
            x = ResnetBlock(self.features, self.groups, _EPSILON, self.dtype, name=name)(x)
        if self.resample == "down":
            return Downsample((0, 1), self.dtype, name="downsamplers_0")(x)
        return Upsample(self.dtype, name="upsamplers_0")(x) if self.resample == "up" else x


class _Middle(nn.Module):
    """Residual block, single-head attention over the pixels (optional), residual block."""

    groups: int
    attention: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        b, h, w, c = x.shape
        x = ResnetBlock(c, self.groups, _EPSILON, self.dtype, name="resnets_0")(x)
        if self.attention:
            layer = Attention(1, True, self.groups, self.dtype, name="attentions_0")
            x = x + layer(x.reshape(b, h * w, c)).reshape(x.shape)
        return ResnetBlock(c, self.groups, _EPSILON, self.dtype, name="resnets_1")(x)


class _Encoder(nn.Module):
    """[b, H, W, 3] -> [b, h, w, 2c]."""

    config: VAEConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        c, n = self.config, len(self.config.block_out_channels)
        groups = c.norm_num_groups
        x = conv(c.block_out_channels[0], 3, self.dtype, "conv_in")(x)
        for i, features in enumerate(c.block_out_channels):
            kind = "down" if i < n - 1 else None
            name = f"down_blocks_{i}"
            x = _Stage(features, c.layers_per_block, groups, kind, self.dtype, name=name)(x)
        x = _Middle(groups, c.mid_block_add_attention, self.dtype, name="mid_block")(x)
        x = nn.silu(GroupNorm(groups, _EPSILON, self.dtype, name="conv_norm_out")(x))
        return conv(2 * c.latent_channels, 3, self.dtype, "conv_out")(x)


class _Decoder(nn.Module):
    """[b, h, w, c] -> [b, H, W, 3]."""

    config: VAEConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z):
        c, n = self.config, len(self.config.block_out_channels)
        groups = c.norm_num_groups
        x = conv(c.block_out_channels[-1], 3, self.dtype, "conv_in")(z)
        x = _Middle(groups, c.mid_block_add_attention, self.dtype, name="mid_block")(x)
        for i, features in enumerate(reversed(c.block_out_channels)):
            kind = "up" if i < n - 1 else None
            name = f"up_blocks_{i}"
            x = _Stage(features, c.layers_per_block + 1, groups, kind, self.dtype, name=name)(x)
        x = nn.silu(GroupNorm(groups, _EPSILON, self.dtype, name="conv_norm_out")(x))
        return conv(c.out_channels, 3, self.dtype, "conv_out")(x)


class AutoencoderKL(nn.Module):
    """Encoder and decoder; `dtype` is the type of the computation and of the results.

    Latents are unscaled here: multiply a mean by `config.scaling_factor` for the diffusion model.
    """

    config: VAEConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Makes the parts, as flax asks for."""
        c = self.config
        self.encoder = _Encoder(c, self.dtype)
        self.decoder = _Decoder(c, self.dtype)
        if c.use_quant_conv:
            self.quant_conv = nn.Conv(2 * c.latent_channels, (1, 1), dtype=self.dtype)
        if c.use_post_quant_conv:
            self.post_quant_conv = nn.Conv(c.latent_channels, (1, 1), dtype=self.dtype)

    def encode(self, x):
        """Images x [b, H, W, 3] in [-1, 1] -> mean and log variance, each [b, h, w, c].

        Raises ValueError unless H and W are multiples of `config.factor`.
        """
        c = self.config
        if x.ndim != 4 or x.shape[3] != c.in_channels or any(n % c.factor for n in x.shape[1:3]):
            raise ValueError(
                f"VAE: images must be [b, H, W, {c.in_channels}] with H and W multiples of "
                f"{c.factor}, got {x.shape}"
            )
        moments = self.encoder(x)
        if c.use_quant_conv:
            moments = self.quant_conv(moments)
        mean, logvar = jnp.split(moments, 2, -1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, z):
        """Unscaled latents z [b, h, w, c] -> images [b, H, W, 3], about [-1, 1], not clipped."""
        if self.config.use_post_quant_conv:
            z = self.post_quant_conv(z)
        return self.decoder(z)

    def __call__(self, x):
        """decode(mean of encode(x)); touches every parameter, so `init` uses it."""
        return self.decode(self.encode(x)[0])
