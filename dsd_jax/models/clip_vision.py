"""The vision encoder of CLIP (transformers' CLIPVisionModelWithProjection).

Letters: b batch, S side of the image in pixels, l patches and the class token, d hidden width.
Parameters are named after transformers' keys (see `keys.py`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from dsd_jax.models import keys
from dsd_jax.models.clip_layers import Layers, layer_norm
from dsd_jax.models.config import ClipVisionConfig

# Mean and standard deviation of CLIP's training images, RGB in [0, 1].
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_NOT_WEIGHTS = ("vision_model.embeddings.position_ids",)  # in older files


def normalise_image(image: Float[Array, "H W 3"], side: int = 224) -> Float[Array, "S S 3"]:
    """What CLIP takes for an image in [0, 1] of any size: [side, side, 3] of about unit variance.

    Resized bicubically (Keys, a = -1/2), antialiased where it shrinks, without cropping; may
    overshoot [0, 1], is differentiable, then has the channels' mean taken off and is divided by
    their standard deviation.
    """
    image = jnp.asarray(image, jnp.float32)
    image = jax.image.resize(image, (side, side, 3), "bicubic", antialias=True)
    return (image - jnp.array(_MEAN)) / jnp.array(_STD)


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
        """Images [b, S, S, 3] of `normalise_image` -> image embeddings [b, projection_dim].

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
    image = jnp.zeros((1, side, side, 3))
    return jax.eval_shape(network.init, jax.random.key(0), image)["params"]


def from_torch(network: ClipVision, tensors: dict[str, np.ndarray]) -> dict:
    """Parameters from {transformers' key: array}, for instance the content of model.safetensors.

    Raises ValueError for the first tensor that is missing, misshapen or has no place.
    """
    expected = keys.flatten(param_shapes(network))
    for key in sorted({*expected, *tensors} - {*_NOT_WEIGHTS}):
        wanted = keys.torch_shape(*_path_and_shape(expected[key])) if key in expected else None
        found = tuple(tensors[key].shape) if key in tensors else None
        if wanted != found:
            raise ValueError(f"CLIP vision: tensor {key} should be {wanted}, is {found}")
    return keys.unflatten(
        {path: keys.from_torch(path, np.asarray(tensors[k])) for k, (path, _) in expected.items()}
    )


def _path_and_shape(entry):
    path, leaf = entry
    return path, leaf.shape
