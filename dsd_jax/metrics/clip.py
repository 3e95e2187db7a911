"""CLIP's image and text encoders as a judge: does a picture fit its prompt?

Letters: n images, p prompts, v views, e width of CLIP's common space, S side of its images. The
weights are the user's: a folder in transformers' layout (CLIPModel), read without torch,

    folder/config.json, model.safetensors        the two encoders and their projections
    folder/vocab.json, merges.txt, ...           the tokenizer
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from dsd_jax.metrics.batches import in_batches
from dsd_jax.models import keys
from dsd_jax.models.clip_text import ClipText
from dsd_jax.models.clip_vision import ClipVision, preprocess
from dsd_jax.models.clip_vision import param_shapes as vision_shapes
from dsd_jax.models.config import ClipTextConfig, ClipVisionConfig
from dsd_jax.models.tensor_files import read_json, read_params
from dsd_jax.models.tokenizer import check_ids, read_tokenizer

# What transformers leaves out of config.json because it is its default, and no configuration of
# ours supposes: the sizes of ViT-B/32.
_TEXT = {"vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048,
         "num_hidden_layers": 12, "num_attention_heads": 8}  # fmt: skip
_VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
           "num_attention_heads": 12}  # fmt: skip
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_UNREAD = {"logit_scale", "text_model.embeddings.position_ids",
           "vision_model.embeddings.position_ids"}  # fmt: skip


class Clip(NamedTuple):
    """Both encoders.

    Attributes:
        vision, text: the networks.
        params: {"vision_model", "visual_projection", "text_model", "text_projection"}, named as
            in transformers.
        folder: where the tokenizer lies.
    """

    vision: ClipVision
    text: ClipText
    params: dict
    folder: Path


def load_clip(folder: str | Path, dtype=jnp.float32) -> Clip:
    """Read a folder of transformers' CLIPModel; `dtype` is that of computation and weights.

    Raises FileNotFoundError for what is missing, and ValueError for what is no CLIP model, a
    configuration that is not supported, and a tensor that is missing, misshapen or too many.
    """
    folder = Path(folder)
    vision, text = _networks(folder, dtype)
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise FileNotFoundError(f"{folder / _WEIGHTS[0]} is missing (only safetensors are read)")
    read_tokenizer(folder)  # raises where there is none
    expected = keys.flatten(param_shapes(vision, text))

    def names(stored):
        return {name: name for name in stored - _UNREAD}

    params = read_params(weights, expected, names, jnp.dtype(dtype))
    return Clip(vision, text, jax.device_put(params), folder)


def _networks(folder: Path, dtype) -> tuple[ClipVision, ClipText]:
    """The encoders that a folder's config.json describes."""
    config = read_json(folder / "config.json")
    if config.get("model_type") != "clip":
        raise ValueError(f"{folder} holds no CLIP model: config.json has no model_type clip")
    for name in ("vision_config", "text_config"):
        if not isinstance(config.get(name, {}), dict):
            raise ValueError(f"{folder}: config.json needs named entries in {name}")
    width = {"projection_dim": config.get("projection_dim", 512)}
    vision = ClipVisionConfig.from_dict(_VISION | config.get("vision_config", {}) | width)
    text = ClipTextConfig.from_dict(_TEXT | config.get("text_config", {}) | width)
    return ClipVision(vision, jnp.dtype(dtype)), ClipText(text, jnp.dtype(dtype))


def param_shapes(vision: ClipVision, text: ClipText) -> dict:
    """A jax.ShapeDtypeStruct for each parameter of `Clip.params`."""
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    width, e = text.config.hidden_size, vision.config.projection_dim
    return vision_shapes(vision) | {
        "text_model": jax.eval_shape(text.init, jax.random.key(0), ids)["params"],
        "text_projection": {"kernel": jax.ShapeDtypeStruct((width, e), jnp.float32)},
    }


def image_features(
    clip: Clip, images: Num[np.ndarray, "*batch h w 3"], batch: int = 64
) -> Float[np.ndarray, "*batch e"]:
    """Projected features, of length 1, of square images (floats in [0, 1] or uint8)."""

    def function(part):
        return _image_features(clip.vision, clip.params, part)

    return in_batches(function, images, batch)


def text_features(clip: Clip, prompts: list[str]) -> Float[Array, "p e"]:
    """Projected features, of length 1, of prompts; cut at the encoder's length."""
    tokenizer = read_tokenizer(clip.folder)
    ids = tokenizer(prompts, clip.text.config.max_position_embeddings)
    check_ids(ids, clip.text.config.vocab_size, clip.folder)
    return _text_features(clip.text, clip.params, jnp.asarray(ids))


def prompt_similarity(
    clip: Clip, prompt: str, views: Num[np.ndarray, "n v h w 3"]
) -> Float[np.ndarray, "n"]:
    """Cosine between each object's pictures and its prompt, the mean over its views."""
    seen = image_features(clip, views)
    return (seen @ np.asarray(text_features(clip, [prompt]))[0]).mean(1)


@partial(jax.jit, static_argnums=0)
def _image_features(vision: ClipVision, params, images: Num[Array, "n h w 3"]):
    """Resized as CLIP's own preprocessing does it, bicubically and antialiased, then normalised."""
    side = vision.config.image_size
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255.0
    images = jax.image.resize(images, (len(images), side, side, 3), "bicubic")
    images = jax.vmap(partial(preprocess, side=side))(jnp.clip(images, 0, 1))
    own = {name: params[name] for name in ("vision_model", "visual_projection")}
    return _unit(vision.apply({"params": own}, images))


@partial(jax.jit, static_argnums=0)
def _text_features(text: ClipText, params, ids: Int[Array, "p l"]):
    """Features at the end of the text, whose token has the highest id."""
    hidden = jnp.asarray(text.apply({"params": params["text_model"]}, ids))
    ends = hidden[jnp.arange(len(ids)), ids.argmax(1)]
    return _unit(jnp.matmul(ends, params["text_projection"]["kernel"], precision="highest"))


def _unit(rows):
    rows = rows.astype(jnp.float32)
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
