"""Priors of the Stable Diffusion family, Toybox among them: a diffusers folder, or one file.

Letters: n prompts or network samples, l d length and width of a text embedding, h w c a latent,
H W an image, v views.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from dsd_jax.guidance import DenoiserAt, Network, ViewPrompts, classifier_free, perp_neg
from dsd_jax.models import lora
from dsd_jax.models.flax_pipeline import convert
from dsd_jax.models.ldm_pipeline import load_single_file
from dsd_jax.models.networks import Networks
from dsd_jax.models.tokenizer import Tokenizer, of_transformers, read_tokenizer
from dsd_jax.models.weights import Pipeline, load_pipeline
from dsd_jax.priors import latent
from dsd_jax.schedule import NoiseSchedule


@struct.dataclass
class Prior:
    """A latent diffusion model: weights, and pure functions that take them as an argument.

    Attributes:
        params: {"unet", "vae", "text_encoder"}, pass it (or its copy on devices) to the methods.
        schedule: noise schedule.
        networks: Flax modules.
        folder: where it was read from; the tokenizer lies there.
        tokenizer: instead of the folder's.
    """

    params: Any
    schedule: NoiseSchedule
    networks: Networks = struct.field(pytree_node=False)
    folder: Path = struct.field(pytree_node=False)
    tokenizer: Tokenizer | None = struct.field(pytree_node=False, default=None)

    @property
    def image_size(self) -> int:
        """Side of the images it was trained on, pixels."""
        return self.networks.unet.config.sample_size * self.networks.vae.config.factor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of a latent."""
        side = self.networks.unet.config.sample_size
        return side, side, self.networks.unet.config.out_channels

    @property
    def has_camera(self) -> bool:
        """Whether the network can be told where the camera stands."""
        return self.networks.unet.config.camera_dim is not None

    @property
    def num_views(self) -> int:
        """Views that are denoised together by default."""
        return 1

    def encode(self, params, image: Float[Array, "H W 3"]) -> Float[Array, "h w c"]:
        """Latent of an image in [0, 1] of any size, resized bilinearly to `image_size`.

        The posterior's mean times the scaling factor, float32; differentiable in `image`.
        """
        return latent.encode(self.networks.vae, params["vae"], image, self.image_size)

    def decode(self, params, x: Float[Array, "h w c"]) -> Float[Array, "H W 3"]:
        """Image of a latent, clipped to [0, 1], float32."""
        return latent.decode(self.networks.vae, params["vae"], x)

    def encode_prompt(self, params, prompts: list[str]) -> Float[Array, "n l d"]:
        """Text embeddings, float32; tokenises, so not jittable.

        Prompts are padded, or cut, to the tokenizer's length. Raises FileNotFoundError when the
        folder has no tokenizer.
        """
        ids = jnp.asarray(self.tokenize(prompts), jnp.int32)
        return _encode_ids(self.networks.text_encoder, params["text_encoder"], ids)

    def tokenize(self, prompts: list[str]) -> Int[np.ndarray, "n l"]:
        """Token ids of prompts, padded, or cut, to the tokenizer's length."""
        tokenizer = self.tokenizer or read_tokenizer(self.folder / "tokenizer")
        return tokenizer(prompts, self.networks.text_encoder.config.max_position_embeddings)

    def network(self, params, num_views: int = 1) -> Network:
        """(x [n, ...], t [n], conditioning with leading n) -> eps [n, ...], float32.

        The conditioning is {"text": [l, d]} and, optionally, {"camera": [16]}. With num_views > 1
        a sample is [v, h, w, c], its camera [v, 16], and its views attend to one another.
        """
        unet = self.networks.unet

        def network(x, t, conditioning):
            text, camera = conditioning["text"], conditioning.get("camera")
            shape, t_views = x.shape, t
            if num_views > 1:
                x = x.reshape(-1, *shape[2:])
                t_views, text = jnp.repeat(t, num_views), jnp.repeat(text, num_views, 0)
                camera = None if camera is None else camera.reshape(-1, camera.shape[-1])
            prediction = unet.apply({"params": params["unet"]}, x, t_views, text, camera, num_views)
            prediction = jnp.asarray(prediction, jnp.float32).reshape(shape)
            return self.schedule.to_eps(prediction, x.reshape(shape), t)

        return network

    def init_adapter(self, key: jax.Array, params, rank: int) -> Any:
        """Weights of a LoRA of the UNet that changes nothing yet, see `models.lora.init`."""
        return lora.init(key, params["unet"], rank)

    def adapt(self, params, adapter: Any) -> Any:
        """The weights with an adapter's in them, to be passed in their place."""
        return {**params, "unet": lora.merge(params["unet"], adapter)}

    def denoiser_at(
        self, params, text: Array, uncond: Array, camera: Array | None = None, num_views: int = 1
    ) -> DenoiserAt:
        """Guidance scale -> denoiser of [h, w, c], or of [v, h, w, c] with num_views = v > 1.

        Args:
            params: weights.
            text: [l, d] of the prompt.
            uncond: [l, d] of the negative prompt.
            camera: [16], or [v, 16], of `camera_embedding_input`.
        """
        extra = {} if camera is None else {"camera": camera}
        return classifier_free(
            self.network(params, num_views), {"text": text, **extra}, {"text": uncond, **extra}
        )

    def perp_neg_at(self, params, view_prompts: ViewPrompts, uncond: Array) -> DenoiserAt:
        """Guidance scale -> denoiser of [h, w, c] by Perp-Neg, for a network without camera.

        Args:
            params: weights.
            view_prompts: of one view; text [l, d], negatives [2, l, d].
            uncond: [l, d] of the negative prompt.
        """
        text, negatives = {"text": view_prompts.text}, {"text": view_prompts.negatives}
        weights = view_prompts.weights
        return perp_neg(self.network(params), text, {"text": uncond}, negatives, weights)


def load(folder, dtype=jnp.float32, param_dtype=None) -> Prior:
    """Read a folder in diffusers layout; weights go to the default device.

    `dtype` is the type of the networks' computation, `param_dtype` (default `dtype`) that of
    the weights. Raises as `models.weights.load_pipeline` does.
    """
    return _prior(load_pipeline(folder, dtype, param_dtype), Path(folder))


def load_file(file, dtype=jnp.float32, param_dtype=None, config: dict | None = None) -> Prior:
    """Read a latent-diffusion checkpoint, as `load` does a folder.

    The tokenizer is the folder `tokenizer/` beside it. Raises FileNotFoundError without one, and
    as `models.ldm_pipeline.load_single_file` does, which also says what `config` is.
    """
    folder = Path(file).parent
    pipeline = load_single_file(file, dtype, param_dtype, config)
    return _prior(pipeline, folder, read_tokenizer(folder / "tokenizer"))


def from_flax_pipeline(pipeline, params) -> Prior:
    """The prior of diffusers' (< 0.40) FlaxStableDiffusionPipeline and the params it came with.

    Networks compute in the pipeline's own dtype, weights keep theirs, prompts go through its
    tokenizer. Raises ValueError for an unsupported configuration, or as
    `models.flax_pipeline.convert` does.
    """
    folder = Path(pipeline.tokenizer.name_or_path).parent
    return _prior(convert(pipeline, params), folder, of_transformers(pipeline.tokenizer))


def _prior(pipeline: Pipeline, folder: Path, tokenizer: Tokenizer | None = None) -> Prior:
    unet, vae = pipeline.networks.unet.config, pipeline.networks.vae.config
    if unet.out_channels != vae.latent_channels:
        raise ValueError(
            f"{folder}: the unet predicts {unet.out_channels} channels, "
            f"the vae has {vae.latent_channels}"
        )
    schedule = NoiseSchedule.from_config(pipeline.scheduler)
    params = jax.device_put(pipeline.params)
    return Prior(params, schedule, pipeline.networks, folder, tokenizer)


@partial(jax.jit, static_argnums=0)
def _encode_ids(encoder, params, ids):
    return encoder.apply({"params": params}, ids).astype(jnp.float32)


def camera_embedding_input(camera_to_world: Float[Array, "*n 4 4"]) -> Float[Array, "*n 16"]:
    """MVDream's camera vector: axes of Blender, position on the unit sphere, flattened.

    A point (x, y, z) of the OpenGL world is (x, -z, y) in Blender's. arXiv 2308.16512.
    """
    rows = jnp.asarray(camera_to_world)
    rows = jnp.stack([rows[..., 0, :], -rows[..., 2, :], rows[..., 1, :], rows[..., 3, :]], -2)
    position = rows[..., :3, 3]
    unit = position / jnp.linalg.norm(position, axis=-1, keepdims=True)
    rows = rows.at[..., :3, 3].set(unit)
    return rows.reshape(*rows.shape[:-2], 16)
