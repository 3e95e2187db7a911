"""Zero-1-to-3 (arXiv 2303.11328), Zero123-XL and Stable Zero123: views of what one image shows.

The UNet takes the noisy latent and the image's latent, concatenated on channels, and as text the
image's CLIP embedding, told of the move by `project`. The image's latent is the posterior's mean
without the scaling factor; without condition both it and the projected embedding are zeros (the
authors' gradio_new.py: `encode_first_stage(...).mode()`, `zeros_like(c)` after `cc_projection`; the
same in threestudio's zero123_guidance.py).

Stable Zero123 is the same network with another meaning of the pose's last number: not the change
of distance, but the polar angle of the image's camera (threestudio's stable_zero123_guidance.py).
Nothing in the weights tells, so the JSON beside a file says it ("pose", see `models.ldm_config`),
or a folder's model_index.json, or who loads it.

Letters: l d length (1) and width of the context, h w c a latent, H W an image. Angles in radians.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from dsd_jax.guidance import DenoiserAt, Network, classifier_free
from dsd_jax.models import lora
from dsd_jax.models.clip_vision import preprocess
from dsd_jax.models.ldm_config import POSES, read_config
from dsd_jax.models.weights import read_index
from dsd_jax.models.zero123 import (
    FOV_DEG,
    ImageNetworks,
    ImagePipeline,
    fov_deg_of,
    load_folder,
    load_single_file,
    pose_of,
)
from dsd_jax.priors import latent
from dsd_jax.priors.base import Defaults, Picture, Viewpoint, ViewWords
from dsd_jax.priors.image_conditioning import ImageConditioning, stacked
from dsd_jax.schedule import NoiseSchedule


class View(NamedTuple):
    """Where a camera stands that looks at the origin.

    Attributes:
        elevation, azimuth: radians; azimuth counts counterclockwise, seen from above.
        distance: in units of which the object fills about one: 1.5 to 2.2 in training.
    """

    elevation: Any
    azimuth: Any
    distance: Any


def pose_vector(delta_polar, delta_azimuth, last) -> Float[Array, "*n 4"]:
    """(polar, sin azimuth, cos azimuth) of target camera minus image's camera, and a last number.

    Angles in radians, all of one shape [*n]; the polar angle is measured from the pole. `last` is
    the distance of the target minus that of the image's camera, or, for Stable Zero123, the polar
    angle of the image's camera.
    """
    polar, azimuth, last = map(jnp.asarray, (delta_polar, delta_azimuth, last))
    return jnp.stack([polar, jnp.sin(azimuth), jnp.cos(azimuth), last], -1)


def project(
    cc_projection: dict, image_embedding: Float[Array, "*n l d"], pose: Float[Array, "*n 4"]
) -> Float[Array, "*n l d"]:
    """The UNet's text input: a linear layer of image embedding and pose.

    `cc_projection` is {"kernel": [d + 4, d], "bias": [d]}.
    """
    pose = jnp.broadcast_to(pose[..., None, :], (*image_embedding.shape[:-1], pose.shape[-1]))
    joined = jnp.concatenate([image_embedding, pose], -1)
    return joined @ cc_projection["kernel"] + cc_projection["bias"]


@struct.dataclass
class Prior(Defaults):
    """A latent diffusion model of views: weights, and pure functions that take them as an argument.

    Attributes:
        params: {"unet", "vae", "image_encoder", "cc_projection"}, pass it (or its copy on devices)
            to the methods.
        schedule: noise schedule.
        networks: Flax modules.
        folder: where it was read from.
        pose_kind: what the pose's last number is, "distance" or "elevation" (Stable Zero123).
        fov_deg: vertical field of view of its training pictures.
    """

    params: Any
    schedule: NoiseSchedule
    networks: ImageNetworks = struct.field(pytree_node=False)
    folder: Path = struct.field(pytree_node=False)
    pose_kind: str = struct.field(pytree_node=False, default=POSES[0])
    fov_deg: float = struct.field(pytree_node=False, default=FOV_DEG)

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
    def takes_pictures(self) -> bool:
        """Several images, too."""
        return True

    @property
    def depends_on_elevation(self) -> bool:
        """Whether it is told from what elevation the image was taken, beside the move."""
        return self.pose_kind == "elevation"

    def encode(self, params, image: Float[Array, "H W k"]) -> Float[Array, "h w c"]:
        """Latent to be denoised of an image in [0, 1], as `latent.encode` makes it."""
        return latent.encode(self.networks.vae, params["vae"], image, self.image_size)

    def decode(self, params, x: Float[Array, "h w c"]) -> Float[Array, "H W k"]:
        """Image of a latent, clipped to [0, 1], float32."""
        return latent.decode(self.networks.vae, params["vae"], x)

    def condition(
        self,
        told: str | Picture | list[Picture],
        *,
        negative_prompt: str = "",
        view_prompts: ViewWords = "perp-neg",
    ) -> ImageConditioning:
        """What the prior is to know of a picture; compiled once for all of one size.

        Args:
            told: the picture, or several, of which the nearest tells of each view.
            negative_prompt, view_prompts: of priors that read prompts; without effect.

        Raises ValueError for a prompt, or where it needs the picture's opacity.
        """
        if isinstance(told, list):
            return stacked([self.condition(one) for one in told], [one.azimuth for one in told])
        if not isinstance(told, Picture):
            raise ValueError(
                f"{self.folder} is of the Zero-1-to-3 family, which takes an image and not a prompt"
            )
        picture = jnp.asarray(told.rgb)
        if self.sees_opacity:
            if told.opacity is None:
                raise ValueError(f"{self.folder} sees opacity: the picture needs its own")
            picture = jnp.concatenate([picture, jnp.asarray(told.opacity)[..., None]], -1)
        image = _encode_image(self, picture)
        return dataclasses.replace(image, elevation=jnp.asarray(told.elevation, jnp.float32))

    def encode_image(self, params, image: Float[Array, "H W k"]) -> ImageConditioning:
        """What the prior sees of an image in [0, 1] of any size, on white, float32; jittable.

        The image is resized bilinearly to `image_size` for both of its parts; its elevation counts
        as 0.
        """
        size, encoder = self.image_size, self.networks.image_encoder
        image = jax.image.resize(image, (size, size, image.shape[-1]), "bilinear")
        seen = preprocess(image[..., :3], encoder.config.image_size)[None]
        embedding = encoder.apply({"params": params["image_encoder"]}, seen)
        z = latent.encode_unscaled(self.networks.vae, params["vae"], image, size)
        return ImageConditioning(jnp.asarray(embedding, jnp.float32), z)

    def for_steps(self) -> "Prior":
        """The prior without its image encoder's weights."""
        params = {name: tree for name, tree in self.params.items() if name != "image_encoder"}
        return dataclasses.replace(self, params=params)

    def pose(self, target: View, source: View) -> Float[Array, "4"]:
        """The pose vector of the view `target` of an object whose image is taken from `source`."""
        last = target.distance - source.distance
        if self.depends_on_elevation:
            last = jnp.pi / 2 - source.elevation
        delta_polar = source.elevation - target.elevation
        return pose_vector(delta_polar, target.azimuth - source.azimuth, last)

    def network(self, params) -> Network:
        """(x [n, h, w, c], t [n], conditioning with leading n) -> eps [n, h, w, c], float32.

        The conditioning is {"text": [l, d], as `project` gives it, "latent": [h, w, c]}.
        """

        def network(x, t, conditioning):
            inputs = jnp.concatenate([x, conditioning["latent"]], -1)
            prediction = self.networks.unet.apply(
                {"params": params["unet"]}, inputs, t, conditioning["text"]
            )
            return self.schedule.to_eps(jnp.asarray(prediction, jnp.float32), x, t)

        return network

    def init_adapter(self, key: jax.Array, params, rank: int) -> Any:
        """Weights of a LoRA of the UNet that changes nothing yet, see `models.lora.init`."""
        return lora.init(key, params["unet"], rank)

    def adapt(self, params, adapter: Any) -> Any:
        """The weights with an adapter's in them, to be passed in their place."""
        return {**params, "unet": lora.merge(params["unet"], adapter)}

    def denoiser_at(
        self, params, condition: ImageConditioning, viewpoints: Viewpoint
    ) -> DenoiserAt:
        """Guidance scale -> denoiser of [h, w, c], a view of the object of an image.

        The image's camera stands at azimuth 0 and as far away as the view's; of several images the
        nearest one tells of the view.

        Args:
            params: weights.
            condition: of `condition`.
            viewpoints: of one view.
        """
        target = View(viewpoints.elevation, viewpoints.azimuth, 0.0)
        azimuth = 0.0
        if condition.azimuth is not None:
            condition = condition.nearest(viewpoints.azimuth)
            azimuth = condition.azimuth
        source = View(condition.elevation, azimuth, 0.0)
        return self.denoiser_at_pose(params, condition, self.pose(target, source))

    def denoiser_at_pose(
        self, params, image: ImageConditioning, pose: Float[Array, "4"]
    ) -> DenoiserAt:
        """Guidance scale -> denoiser of [h, w, c], the view of the object of `image` at `pose`.

        Args:
            params: weights.
            image: of `encode_image`.
            pose: of `pose`.
        """
        text = project(params["cc_projection"], image.embedding, pose)
        conditioning = {"text": text.astype(jnp.float32), "latent": image.latent}
        return classifier_free(
            self.network(params), conditioning, jax.tree.map(jnp.zeros_like, conditioning)
        )


def load(folder, dtype=jnp.float32, param_dtype=None, pose: str | None = None) -> Prior:
    """Read a port to diffusers; weights go to the default device.

    `dtype` is the type of the networks' computation, `param_dtype` (default `dtype`) that of the
    weights; `pose` is what its last number is, as `models.zero123.pose_of` has it. Where the folder
    says no field of view, one line on stderr tells which is assumed.
    Raises as that, `models.zero123.fov_deg_of` and `load_folder` do.
    """
    folder = Path(folder)
    pose, fov_deg = pose_of(folder, pose), fov_deg_of(folder)
    if "fov_deg" not in read_index(folder):
        _say_assumed(folder, '"fov_deg" in its model_index.json, or --camera.fov-deg,')
    return _prior(load_folder(folder, dtype, param_dtype), folder, pose, fov_deg)


def load_file(file, dtype=jnp.float32, param_dtype=None, config: dict | None = None) -> Prior:
    """Read a checkpoint of the original code, as `load` does a folder that says no field of view.

    Raises as `models.zero123.load_single_file` does.
    """
    file = Path(file)
    config = read_config(file) if config is None else config
    pipeline = load_single_file(file, dtype, param_dtype, config)
    _say_assumed(file, "--camera.fov-deg")
    return _prior(pipeline, file.parent, config["pose"], FOV_DEG)


def _say_assumed(place: Path, otherwise: str) -> None:
    """Which field of view is assumed, and what says another."""
    logging.getLogger(__name__).warning(
        "%s does not say the field of view of its pictures: taken as Zero-1-to-3's, %g degrees; "
        "%s says otherwise", place, FOV_DEG, otherwise,
    )  # fmt: skip


def _prior(pipeline: ImagePipeline, folder: Path, pose_kind: str, fov_deg: float) -> Prior:
    schedule = NoiseSchedule.from_config(pipeline.scheduler)
    params = jax.device_put(pipeline.params)
    return Prior(params, schedule, pipeline.networks, folder, pose_kind, fov_deg)


@jax.jit
def _encode_image(prior: Prior, picture: Float[Array, "s s k"]) -> ImageConditioning:
    return prior.encode_image(prior.params, picture)
