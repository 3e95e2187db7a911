"""Attention, and the transformer blocks of the UNet.

Letters: b batch, l tokens (queries), m tokens (keys), c channels, v views.
"""

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from dsd_jax.models.layers import GroupNorm, conv


def implementation(dtype, head_features: int) -> Literal["xla", "cudnn"]:
    """The kernel `jax.nn.dot_product_attention` should use: "cudnn" where it can, else "xla".

    cuDNN's flash attention wants half precision, an Ampere or later GPU, and a head of at most
    128 features in multiples of 8.
    """
    half = jnp.dtype(dtype) in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))
    if not half or head_features > 128 or head_features % 8 or jax.default_backend() != "gpu":
        return "xla"
    capability = getattr(jax.devices()[0], "compute_capability", "0.0")
    return "cudnn" if float(capability) >= 8 else "xla"


def attend(query, key, value, heads: int, causal: bool = False) -> jax.Array:
    """Multi-head attention of query [b, l, c] on key and value [b, m, c]; softmax in float32.

    Returns [b, l, c]. `heads` divides c. Of a single key all attention is there.
    """
    if key.shape[1] == 1:
        return jnp.broadcast_to(value, query.shape)
    query, key, value = (rearrange(x, "n t (h d) -> n t h d", h=heads) for x in (query, key, value))
    kind = implementation(query.dtype, query.shape[-1])
    odd = query.shape[1] % 2 or key.shape[1] % 2
    if kind == "cudnn" and odd:
        out: jax.Array = _cudnn_forward_only(causal, query, key, value)
    else:
        out = _attention(kind, causal, query, key, value)
    return rearrange(out, "n t h d -> n t (h d)")


def _attention(kind, causal: bool, query, key, value) -> jax.Array:
    kernel = partial(jax.nn.dot_product_attention, is_causal=causal, implementation=kind)
    split = _split_axes()
    if kind == "cudnn" and split:  # XLA cannot divide cuDNN's work: each device takes some heads
        even = query.shape[2] % math.prod(split.values()) == 0
        part = P(None, None, tuple(split)) if even else P()
        kernel = jax.shard_map(
            kernel, in_specs=part, out_specs=part, axis_names=set(split), check_vma=False
        )
    return kernel(query, key, value)


def _split_axes() -> dict[str, int]:
    """Axes of the mesh, and their sizes, along which XLA is free to divide the work."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name: mesh.shape[name] for name, kind in kinds if kind == AxisType.Auto}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cudnn_forward_only(causal: bool, query, key, value) -> jax.Array:
    """By cuDNN; where a gradient is asked for by XLA, since cuDNN has none for odd lengths."""
    return _attention("cudnn", causal, query, key, value)


def _xla_forward(causal, query, key, value):
    return jax.vjp(partial(_attention, "xla", causal), query, key, value)


def _xla_backward(causal, pull_back, cotangent):
    del causal
    return pull_back(cotangent)


_cudnn_forward_only.defvjp(_xla_forward, _xla_backward)


class Attention(nn.Module):
    """Attention of x [b, l, c] on context [b, m, d] (itself if None); -> [b, l, c].

    `bias` is for the three input projections: the output projection always has one. With
    `norm_groups`, x is normalised first (GroupNorm, epsilon 1e-6), as in the VAE.
    """

    heads: int
    bias: bool = False
    norm_groups: int | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, context=None):
        if self.norm_groups is not None:
            x = GroupNorm(self.norm_groups, 1e-6, self.dtype, name="group_norm")(x)
        context = x if context is None else context
        features = x.shape[-1]

        def project(name, tokens):
            return nn.Dense(features, use_bias=self.bias, dtype=self.dtype, name=name)(tokens)

        query, key, value = project("to_q", x), project("to_k", context), project("to_v", context)
        out = attend(query, key, value, self.heads)
        return nn.Dense(features, dtype=self.dtype, name="to_out_0")(out)


class GatedGelu(nn.Module):
    """Half of a linear map times the exact GELU of its other half: [..., c] -> [..., features]."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(2 * self.features, dtype=self.dtype, name="proj")(x)
        value, gate = jnp.split(x, 2, -1)
        return value * nn.gelu(gate, approximate=False)


class FeedForward(nn.Module):
    """Gated MLP four times as wide inside: [b, l, c] -> [b, l, c]."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        x_inner = GatedGelu(4 * c, self.dtype, name="net_0")(x)
        return nn.Dense(c, dtype=self.dtype, name="net_2")(x_inner)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention on the text, MLP; each normalised first and added.

    x is [b, l, c] and text [b, m, d]. With num_views = v > 1 the batch holds groups of v views
    (view-minor) and the self-attention sees the v * l tokens of a group, as in MVDream.
    """

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, text, num_views: int = 1):
        def norm(name):
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, use_fast_variance=False, name=name)

        shape = x.shape
        tokens = norm("norm1")(x).reshape(-1, num_views * shape[1], shape[2])
        x = x + Attention(self.heads, dtype=self.dtype, name="attn1")(tokens).reshape(shape)
        x = x + Attention(self.heads, dtype=self.dtype, name="attn2")(norm("norm2")(x), text)
        return x + FeedForward(self.dtype, name="ff")(norm("norm3")(x))


class SpatialTransformer(nn.Module):
    """Transformer over the pixels of x [b, h, w, c], added to x (diffusers' Transformer2DModel).

    `linear` projects in and out with linear layers (Stable Diffusion 2), else with 1 x 1
    convolutions (1.x).
    """

    heads: int
    depth: int
    groups: int
    linear: bool
    dtype: jnp.dtype = jnp.float32

    def _project(self, features, name):
        if self.linear:
            return nn.Dense(features, dtype=self.dtype, name=name)
        return conv(features, 1, self.dtype, name)

    @nn.compact
    def __call__(self, x, text, num_views: int = 1):
        _, h, _, c = x.shape
        y = self._project(c, "proj_in")(GroupNorm(self.groups, 1e-6, self.dtype, name="norm")(x))
        y = rearrange(y, "b h w c -> b (h w) c")
        for i in range(self.depth):
            block = TransformerBlock(self.heads, self.dtype, name=f"transformer_blocks_{i}")
            y = block(y, text, num_views)
        return x + self._project(c, "proj_out")(rearrange(y, "b (h w) c -> b h w c", h=h))
