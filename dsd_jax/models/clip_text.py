"""The text encoder of CLIP (transformers' CLIPTextModel).

Letters: b batch, l tokens, d hidden width. Parameters are named after transformers' keys without
their leading "text_model." (see `keys.py`).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from dsd_jax.models.attention import attend
from dsd_jax.models.config import ClipTextConfig


def _activation(name: str, x):
    """Exact GELU, or CLIP's x * sigmoid(1.702 x)."""
    return nn.gelu(x, approximate=False) if name == "gelu" else x * jax.nn.sigmoid(1.702 * x)


class _Embeddings(nn.Module):
    """Token plus position embeddings: ids [b, l] -> [b, l, d].

    The tables are read in float32: a gradient scattered into a half-precision table is hundreds of
    times slower on a GPU, the more so as most ids are padding.
    """

    config: ClipTextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, ids):
        c = self.config

        def table(rows, name):
            return nn.Embed(rows, c.hidden_size, dtype=jnp.float32, name=name)

        tokens = table(c.vocab_size, "token_embedding")(ids)
        positions = table(c.max_position_embeddings, "position_embedding")
        return (tokens + positions(jnp.arange(ids.shape[1]))).astype(self.dtype)


class _SelfAttention(nn.Module):
    """Causal self-attention with biases, [b, l, d] -> [b, l, d]."""

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        def dense(name, y):
            return nn.Dense(x.shape[-1], dtype=self.dtype, name=name)(y)

        query, key, value = (dense(name, x) for name in ("q_proj", "k_proj", "v_proj"))
        return dense("out_proj", attend(query, key, value, self.heads, causal=True))


class _MLP(nn.Module):
    """Two linear layers with the configured activation between, [b, l, d] -> [b, l, d]."""

    config: ClipTextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        c = self.config
        y = nn.Dense(c.intermediate_size, dtype=self.dtype, name="fc1")(x)
        return nn.Dense(c.hidden_size, dtype=self.dtype, name="fc2")(_activation(c.hidden_act, y))


def _layer_norm(config, dtype, name):
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name
    )


class _Layer(nn.Module):
    """Pre-norm transformer layer, [b, l, d] -> [b, l, d]."""

    config: ClipTextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        c = self.config
        attention = _SelfAttention(c.num_attention_heads, self.dtype, name="self_attn")
        x = x + attention(_layer_norm(c, self.dtype, "layer_norm1")(x))
        return x + _MLP(c, self.dtype, name="mlp")(_layer_norm(c, self.dtype, "layer_norm2")(x))


class _Layers(nn.Module):
    """The stack of layers; `skip` leaves out that many at the end."""

    config: ClipTextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, skip: int):
        for i in range(self.config.num_hidden_layers - skip):
            x = _Layer(self.config, self.dtype, name=f"layers_{i}")(x)
        return x


class ClipText(nn.Module):
    """CLIP text encoder; `dtype` is the type of the computation and of the result."""

    config: ClipTextConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ids, penultimate: bool = False):
        """Token ids [b, l] -> hidden states [b, l, d] after the final layer norm.

        `penultimate` leaves out the last layer (as OpenCLIP-based models do), not the norm.
        Raises ValueError when l is more than `config.max_position_embeddings`.
        """
        c = self.config
        if ids.ndim != 2 or ids.shape[1] > c.max_position_embeddings:
            raise ValueError(
                f"CLIP text: ids must be [b, l] with l at most {c.max_position_embeddings}, "
                f"got {ids.shape}"
            )
        x = _Embeddings(c, self.dtype, name="embeddings")(ids)
        x = _Layers(c, self.dtype, name="encoder")(x, int(penultimate))
        return _layer_norm(c, self.dtype, "final_layer_norm")(x)
