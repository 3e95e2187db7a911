"""Priors of the Stable Diffusion family, Toybox among them: a diffusers folder, or one file.

Letters: n prompts or network samples, l d length and width of a text embedding, h w c a latent,
H W an image, v views.
"""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from dsd_jax.guidance import DenoiserAt, Network, classifier_free, perp_neg
from dsd_jax.models import lora
from dsd_jax.models.flax_pipeline import convert
from dsd_jax.models.ldm_pipeline import load_single_file
from dsd_jax.models.networks import Networks
from dsd_jax.models.tensor_files import read_json
from dsd_jax.models.tokenizer import Tokenizer, check_ids, of_transformers, read_tokenizer
from dsd_jax.models.weights import Pipeline, load_pipeline
from dsd_jax.ode import Denoiser
from dsd_jax.priors import latent
from dsd_jax.priors.base import Distinction, Picture, Viewpoint, ViewWords
from dsd_jax.priors.view_words import Text, blend, cut_off, kept, of_views, words_for
from dsd_jax.priors.words import unknown_words
from dsd_jax.schedule import NoiseSchedule


@struct.dataclass
class Prior:
    """A latent diffusion model told of a prompt: weights, and pure functions that are given them.

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
    def sees_opacity(self) -> bool:
        """Whether its autoencoder's pictures have opacity."""
        return latent.sees_opacity(self.networks.vae)

    @property
    def depends_on_elevation(self) -> bool:
        """It takes no picture."""
        return False

    takes_pictures = depends_on_elevation

    @property
    def denoises_together(self) -> bool:
        """Whether the network can be told where the cameras of several views stand."""
        return self.networks.unet.config.camera_dim is not None

    def encode(self, params, image: Float[Array, "H W k"]) -> Float[Array, "h w c"]:
        """Latent of an image in [0, 1] of any size, resized bilinearly to `image_size`.

        The posterior's mean times the scaling factor, float32; differentiable in `image`.
        """
        return latent.encode(self.networks.vae, params["vae"], image, self.image_size)

    def decode(self, params, x: Float[Array, "h w c"]) -> Float[Array, "H W k"]:
        """Image of a latent, clipped to [0, 1], float32."""
        return latent.decode(self.networks.vae, params["vae"], x)

    def condition(
        self,
        told: str | Picture,
        *,
        negative_prompt: str = "",
        view_prompts: ViewWords = "perp-neg",
    ) -> Text:
        """The embedded prompt, all that its denoisers need of it; tokenises, so not jittable.

        Args:
            told: the prompt.
            negative_prompt: what guidance leads away from.
            view_prompts: see `Text`; without effect where the network has a camera.

        Raises ValueError for what is not one prompt, and as `encode_prompt` does.
        """
        if isinstance(told, Picture):
            raise ValueError(
                f"{self.folder} takes a prompt and not a picture; toybox-1to3 and the Zero-1-to-3 "
                "family take one"
            )
        if not isinstance(told, str):
            raise ValueError(f"condition takes one prompt, a str, not {type(told).__name__}")
        if view_prompts not in get_args(ViewWords):
            known = ", ".join(get_args(ViewWords))
            raise ValueError(f"view_prompts {view_prompts!r} is not one of {known}")
        most = self.networks.text_encoder.config.max_position_embeddings
        views = of_views(told if self.denoises_together else kept(self._reader(), told, most))
        prompts = [told, *views, negative_prompt]
        embedded = self.encode_prompt(self.params, prompts)
        return Text(embedded[0], embedded[1:-1], embedded[-1], view_prompts)

    def encode_prompt(self, params, prompts: list[str]) -> Float[Array, "n l d"]:
        """Text embeddings, float32; tokenises, so not jittable. Raises as `tokenize` does."""
        ids = jnp.asarray(self.tokenize(prompts), jnp.int32)
        return _encode_ids(self.networks.text_encoder, params["text_encoder"], ids)

    def tokenize(self, prompts: list[str]) -> Int[np.ndarray, "n l"]:
        """Token ids of prompts, padded, or cut, to the tokenizer's length.

        Raises ValueError for a bare string, and for a tokenizer that cannot be read or is another
        model's, FileNotFoundError when the folder has none.
        """
        if isinstance(prompts, str):
            raise ValueError(f"give a list of prompts, [{prompts!r}], or use condition")
        config = self.networks.text_encoder.config
        ids = self._reader()(prompts, config.max_position_embeddings)
        check_ids(ids, config.vocab_size, self.folder / "tokenizer")
        return ids

    def _reader(self) -> Tokenizer:
        return self.tokenizer or read_tokenizer(self.folder / "tokenizer")

    def warnings(self, prompt: str) -> list[str]:
        """Which words it does not read, and which it has never seen, if words.json tells.

        Not read are those beyond the tokenizer's length.
        """
        return self._doubts(prompt, not self.denoises_together, "prompt")

    def negative_warnings(self, prompt: str) -> list[str]:
        """The same of a prompt that is led away from, which no view's words follow."""
        return self._doubts(prompt, False, "negative prompt")

    def _doubts(self, prompt: str, with_views: bool, what: str) -> list[str]:
        most = self.networks.text_encoder.config.max_position_embeddings
        lines = cut_off(self._reader(), prompt, most, with_views, what)
        words = self.folder / "words.json"
        unknown = unknown_words(prompt, read_json(words)) if words.is_file() else []
        of = "" if what == "prompt" else f" of the {what}"
        never = f"the prior has never seen the words{of}: {', '.join(unknown)}"
        return [*lines, never] if unknown else lines

    def for_steps(self) -> "Prior":
        """The prior without its text encoder's weights."""
        params = {name: tree for name, tree in self.params.items() if name != "text_encoder"}
        return dataclasses.replace(self, params=params)

    def network(self, params, num_views: int = 1) -> Network:
        """(x [n, ...], t [n], conditioning with leading n) -> eps [n, ...], float32.

        The conditioning is {"text": [l, d]} and, optionally, {"camera": [16]}. A sample may be
        [v, h, w, c] with v = num_views: its camera is [v, 16], its views attend to one another.
        """
        unet = self.networks.unet

        def network(x, t, conditioning):
            text, camera = conditioning["text"], conditioning.get("camera")
            shape, t_views = x.shape, t
            if x.ndim > 4:
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

    def tells_apart(self, condition: Text) -> Distinction:
        """Every camera, where it has one; else what `condition.view_prompts` tells apart."""
        if self.denoises_together:
            return "cameras"
        told: dict[ViewWords, Distinction] = {
            "perp-neg": "sides",
            "words": "words",
            "none": "nothing",
        }
        return told[condition.view_prompts]

    def samples_per_prediction(self, condition: Text) -> int:
        """2 of classifier-free guidance, 4 of Perp-Neg."""
        return 4 if self._pushes_away(condition) else 2

    def denoiser_at(self, params, condition: Text, viewpoints: Viewpoint) -> DenoiserAt:
        """Guidance scale -> denoiser of [h, w, c], or of views [v, h, w, c] with a leading axis.

        Args:
            params: weights.
            condition: of `condition`.
            viewpoints: with a camera `camera_to_world` is told, with a leading axis v that of
                several views; without, the view goes into the prompt, and there is one.
        """
        if not self._pushes_away(condition):
            return self._classifier_free(params, condition, viewpoints)
        told = blend(condition, viewpoints)
        text, negatives = {"text": told.text}, {"text": told.negatives}
        uncond = {"text": condition.uncond}
        return perp_neg(self.network(params), text, uncond, negatives, told.weights)

    def prediction_at(self, params, condition: Text, viewpoints: Viewpoint) -> Denoiser:
        """eps of the prompt alone, without Perp-Neg's negatives; arguments as of `denoiser_at`."""
        return self._classifier_free(params, condition, viewpoints)(1.0)

    def _pushes_away(self, condition: Text) -> bool:
        """Whether its guidance is Perp-Neg."""
        return condition.view_prompts == "perp-neg" and not self.denoises_together

    def _classifier_free(self, params, condition: Text, viewpoints: Viewpoint) -> DenoiserAt:
        if not self.denoises_together:
            text = {"text": words_for(condition, viewpoints)}
            return classifier_free(self.network(params), text, {"text": condition.uncond})
        camera = {"camera": camera_embedding_input(viewpoints.camera_to_world)}
        text, uncond = ({"text": part, **camera} for part in (condition.plain, condition.uncond))
        num_views = math.prod(jnp.shape(viewpoints.azimuth))
        return classifier_free(self.network(params, num_views), text, uncond)


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
    tokenizer = read_tokenizer(folder / "tokenizer")
    return _prior(load_single_file(file, dtype, param_dtype, config), folder, tokenizer)


def from_flax_pipeline(pipeline, params) -> Prior:
    """The prior of diffusers' (< 0.40) FlaxStableDiffusionPipeline and the params it came with.

    Networks compute in the pipeline's own dtype, weights keep theirs, prompts go through its
    tokenizer. Raises ValueError for an unsupported configuration, or as
    `models.flax_pipeline.convert` does.
    """
    folder = Path(pipeline.tokenizer.name_or_path).parent
    return _prior(convert(pipeline, params), folder, of_transformers(pipeline.tokenizer))


def _prior(pipeline: Pipeline, folder: Path, tokenizer: Tokenizer | None = None) -> Prior:
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
