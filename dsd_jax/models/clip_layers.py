"""The transformer layers that CLIP's text and vision encoders share (transformers' CLIPEncoder).

Letters: b batch, l tokens, d hidden width. Parameters are named after transformers' keys (see
`keys.py`).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from dsd_jax.models.attention import attend
from dsd_jax.models.config import ClipTextConfig, ClipVisionConfig


def _activation(name: str, x):
    """Exact GELU, or CLIP's x * sigmoid(1.702 x)."""
    return nn.gelu(x, approximate=False) if name == "gelu" else x * jax.nn.sigmoid(1.702 * x)


def layer_norm(config: ClipTextConfig | ClipVisionConfig, dtype, name: str) -> nn.LayerNorm:
    """Layer norm of the configured epsilon."""
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name
    )


class _SelfAttention(nn.Module):
    """Self-attention with biases, [b, l, d] -> [b, l, d]; `causal` sees only what came before."""

    heads: int
    causal: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        def dense(name, y):
            return nn.Dense(x.shape[-1], dtype=self.dtype, name=name)(y)

        query, key, value = (dense(name, x) for name in ("q_proj", "k_proj", "v_proj"))
        return dense("out_proj", attend(query, key, value, self.heads, self.causal))


class _MLP(nn.Module):
    """Two linear layers with the configured activation between, [b, l, d] -> [b, l, d]."""

    config: ClipTextConfig | ClipVisionConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        c = self.config
        y = nn.Dense(c.intermediate_size, dtype=self.dtype, name="fc1")(x)
        return nn.Dense(c.hidden_size, dtype=self.dtype, name="fc2")(_activation(c.hidden_act, y))


class _Layer(nn.Module):
    """Pre-norm transformer layer, [b, l, d] -> [b, l, d]."""

    config: ClipTextConfig | ClipVisionConfig
    causal: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        c = self.config
        attention = _SelfAttention(c.num_attention_heads, self.causal, self.dtype, name="self_attn")
        x = x + attention(layer_norm(c, self.dtype, "layer_norm1")(x))
        return x + _MLP(c, self.dtype, name="mlp")(layer_norm(c, self.dtype, "layer_norm2")(x))


class Layers(nn.Module):
    """The stack of layers, [b, l, d] -> [b, l, d]; `skip` leaves out that many at the end."""

    config: ClipTextConfig | ClipVisionConfig
    causal: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, skip: int = 0):
        for i in range(self.config.num_hidden_layers - skip):
            x = _Layer(self.config, self.causal, self.dtype, name=f"layers_{i}")(x)
        return x
