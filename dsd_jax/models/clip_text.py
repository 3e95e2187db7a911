"""The text encoder of CLIP (transformers' CLIPTextModel).

Letters: b batch, l tokens, d hidden width. Parameters are named after transformers' keys without
their leading "text_model." (see `keys.py`).
"""

import jax.numpy as jnp
from flax import linen as nn

from dsd_jax.models.clip_layers import Layers, layer_norm
from dsd_jax.models.config import ClipTextConfig


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
        x = Layers(c, True, self.dtype, name="encoder")(x, int(penultimate))
        return layer_norm(c, self.dtype, "final_layer_norm")(x)
