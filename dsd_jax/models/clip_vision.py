"""The vision encoder of CLIP (transformers' CLIPVisionModelWithProjection).

Letters: b batch, S side of the image in pixels, l patches and the class token, d hidden width.
Parameters are named after transformers' keys (see `keys.py`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from dsd_jax.models.clip_layers import Layers, layer_norm
from dsd_jax.models.config import ClipVisionConfig

# Mean and standard deviation of CLIP's training images, RGB in [0, 1].
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def preprocess(image: Float[Array, "H W 3"], side: int = 224) -> Float[Array, "S S 3"]:
    """What Zero-1-to-3 gives CLIP for an image in [0, 1] of any size: [side, side, 3].

    Resized bicubically (Keys, a = -3/4), corner pixels on corner pixels and without antialiasing,
    as its FrozenCLIPImageEmbedder does (kornia, align_corners); may overshoot [0, 1], is
    differentiable. Then the channels' mean is taken off and they are divided by their deviation.
    """
    rows, columns = (jnp.asarray(_bicubic(n, side)) for n in image.shape[:2])
    image = jnp.asarray(image, jnp.float32)
    image = jnp.einsum("sh,tw,hwc->stc", rows, columns, image, precision="highest")
    return (image - jnp.array(_MEAN)) / jnp.array(_STD)


def _bicubic(n: int, m: int) -> np.ndarray:
    """Weights [m, n] that resize n samples to m, the first and the last staying in place."""
    places = np.arange(m) * (n - 1) / max(m - 1, 1)
    weights = np.zeros((m, n), np.float32)
    for offset in (-1, 0, 1, 2):
        index = np.floor(places) + offset
        d = np.abs(places - index)
        near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
        inside = np.clip(index, 0, n - 1).astype(int)
        np.add.at(weights, (np.arange(m), inside), np.where(d <= 1, near, far))
    return weights


class _Embeddings(nn.Module):
    """Class token and patches, plus positions: images [b, S, S, 3] -> [b, l, d]."""

    config: ClipVisionConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, image):
        c, b = self.config, image.shape[0]
        size, width = (c.patch_size, c.patch_size), c.hidden_size
        patches = nn.Conv(
            width, size, size, "VALID", use_bias=False, dtype=self.dtype, name="patch_embedding"
        )(image).reshape(b, -1, width)
        token = self.param("class_embedding", nn.initializers.normal(0.02), (width,))
        tokens = jnp.concatenate([jnp.broadcast_to(token, (b, 1, width)), patches], 1)
        count = tokens.shape[1]
        places = nn.Embed(count, width, dtype=jnp.float32, name="position_embedding")
        return (tokens + places(jnp.arange(count))).astype(self.dtype)


class _VisionModel(nn.Module):
    """Images [b, S, S, 3] -> the class token after all layers, normalised: [b, d]."""

    config: ClipVisionConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, image):
        c = self.config
        x = _Embeddings(c, self.dtype, name="embeddings")(image)
        x = layer_norm(c, self.dtype, "pre_layrnorm")(x)  # transformers' own spelling
        x = Layers(c, False, self.dtype, name="encoder")(x)
        return layer_norm(c, self.dtype, "post_layernorm")(x[:, 0])


class ClipVision(nn.Module):
    """CLIP vision encoder; `dtype` is the type of the computation and of the result."""

    config: ClipVisionConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image):
        """Images [b, S, S, 3] of `preprocess` -> image embeddings [b, projection_dim].

        Raises ValueError unless S is `config.image_size`.
        """
        c = self.config
        if image.ndim != 4 or image.shape[1:] != (c.image_size, c.image_size, 3):
            raise ValueError(
                f"CLIP vision: images must be [b, {c.image_size}, {c.image_size}, 3], "
                f"got {image.shape}"
            )
        x = _VisionModel(c, self.dtype, name="vision_model")(image)
        return nn.Dense(
            c.projection_dim, use_bias=False, dtype=self.dtype, name="visual_projection"
        )(x)


def param_shapes(network: ClipVision) -> dict:
    """A jax.ShapeDtypeStruct for each parameter."""
    side = network.config.image_size
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), image)["params"]
