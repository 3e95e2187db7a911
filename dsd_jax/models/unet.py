"""The UNet of the Stable Diffusion family, optionally with MVDream's camera and cross-view parts.

Letters: b batch, h w height and width, c channels, l d length and width of the text, e width of
the time embedding, v views. NHWC; parameters are named after diffusers' keys (see `keys.py`).
"""

import jax.numpy as jnp
from flax import linen as nn

from dsd_jax.models.attention import SpatialTransformer
from dsd_jax.models.config import UNetConfig
from dsd_jax.models.layers import (
    Downsample,
    EmbeddingMLP,
    GroupNorm,
    ResnetBlock,
    Upsample,
    conv,
    timestep_features,
)


class _Stage(nn.Module):
    """What the stages below share: named residual blocks, and transformers if `attention`.

    `level` indexes the tuples of `config`; `edge` marks the stage without resampling.
    """

    config: UNetConfig
    level: int
    attention: bool
    edge: bool = False
    dtype: jnp.dtype = jnp.float32

    def _block(self, i, x, embedding, text, num_views):
        x = self._resnet(i, x, embedding)
        return self._transformer(i, x, text, num_views) if self.attention else x

    def _resnet(self, i, x, embedding):
        c = self.config
        features = c.block_out_channels[self.level]
        name = f"resnets_{i}"
        block = ResnetBlock(features, c.norm_num_groups, c.norm_eps, self.dtype, name=name)
        return block(x, embedding)

    def _transformer(self, i, x, text, num_views):
        c = self.config
        block = SpatialTransformer(
            heads=c.heads[self.level],
            depth=c.transformer_layers_per_block[self.level],
            groups=c.norm_num_groups,
            linear=c.use_linear_projection,
            dtype=self.dtype,
            name=f"attentions_{i}",
        )
        return block(x, text, num_views)


class _Down(_Stage):
    """One level on the way down: returns x, halved unless `edge`, and the list of skips."""

    @nn.compact
    def __call__(self, x, *conditions):
        skips = []
        for i in range(self.config.layers_per_block[self.level]):
            x = self._block(i, x, *conditions)
            skips.append(x)
        if not self.edge:
            x = Downsample((1, 1), self.dtype, name="downsamplers_0")(x)
            skips.append(x)
        return x, skips


class _Middle(_Stage):
    """Residual block, transformer, residual block."""

    @nn.compact
    def __call__(self, x, embedding, text, num_views):
        x = self._block(0, x, embedding, text, num_views)
        return self._resnet(1, x, embedding)


class _Up(_Stage):
    """One level on the way up: takes `skips`, last first; returns x, doubled unless `edge`."""

    @nn.compact
    def __call__(self, x, skips, *conditions):
        for i, skip in enumerate(reversed(skips)):
            x = self._block(i, jnp.concatenate([x, skip], -1), *conditions)
        return x if self.edge else Upsample(self.dtype, name="upsamplers_0")(x)


class UNet(nn.Module):
    """Noise (or v, or x0) prediction. `dtype` is the type of the computation and of the result."""

    config: UNetConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, t, text, camera=None, num_views: int = 1):
        """x [b, h, w, in], t [b], text [b, l, d], camera [b, camera_dim] | None -> [b, h, w, out].

        With num_views = v > 1, b is a multiple of v and each v consecutive entries are the views
        of one object. Without a camera its embedding is not added.
        Raises ValueError for shapes that do not fit the configuration.
        """
        c = self.config
        self._check(x, text, camera, num_views)
        features = timestep_features(t, c.block_out_channels[0], c.flip_sin_to_cos, c.freq_shift)
        width = 4 * c.block_out_channels[0]
        embedding = EmbeddingMLP(width, self.dtype, name="time_embedding")(features)
        if camera is not None:
            mlp = EmbeddingMLP(width, self.dtype, name="camera_embedding")
            present = jnp.any(camera != 0, axis=-1, keepdims=True)
            embedding = embedding + jnp.where(present, mlp(camera), 0)
        x = conv(c.block_out_channels[0], 3, self.dtype, "conv_in")(x)
        x = self._stages(x, embedding, text.astype(self.dtype), num_views)
        x = nn.silu(GroupNorm(c.norm_num_groups, c.norm_eps, self.dtype, name="conv_norm_out")(x))
        return conv(c.out_channels, 3, self.dtype, "conv_out")(x)

    def _stages(self, x, *conditions):
        c = self.config
        n = len(c.block_out_channels)
        skips = [x]
        for i in range(n):
            name = f"down_blocks_{i}"
            stage = _Down(c, i, c.down_attention[i], i == n - 1, self.dtype, name=name)
            x, new = stage(x, *conditions)
            skips += new
        x = _Middle(c, n - 1, True, True, self.dtype, name="mid_block")(x, *conditions)
        for i in reversed(range(n)):
            name = f"up_blocks_{n - 1 - i}"
            count = c.layers_per_block[i] + 1
            stage = _Up(c, i, c.up_attention[i], i == 0, self.dtype, name=name)
            x = stage(x, skips[-count:], *conditions)
            del skips[-count:]
        return x

    def _check(self, x, text, camera, num_views):
        c, b = self.config, x.shape[0]
        factor = 2 ** (len(c.block_out_channels) - 1)
        if x.ndim != 4 or x.shape[3] != c.in_channels or x.shape[1] % factor or x.shape[2] % factor:
            raise ValueError(
                f"UNet: x must be [b, h, w, {c.in_channels}] with h and w multiples of {factor}, "
                f"got {x.shape}"
            )
        if text.ndim != 3 or (text.shape[0], text.shape[2]) != (b, c.cross_attention_dim):
            wanted = f"[{b}, l, {c.cross_attention_dim}]"
            raise ValueError(f"UNet: text must be {wanted}, got {text.shape}")
        if num_views < 1 or b % num_views:
            raise ValueError(f"UNet: batch {b} is not a multiple of num_views = {num_views}")
        if camera is not None and c.camera_dim is None:
            raise ValueError("UNet: this model has no camera embedding, pass camera=None")
        if camera is not None and camera.shape != (b, c.camera_dim):
            raise ValueError(f"UNet: camera must be [{b}, {c.camera_dim}], got {camera.shape}")
