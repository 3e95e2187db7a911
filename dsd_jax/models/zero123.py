"""Zero-1-to-3 (arXiv 2303.11328), Zero123-XL and Stable Zero123: their networks and weights.

A UNet that takes the noisy latent and an image's latent on its channels, a VAE, CLIP's vision
encoder, and cc_projection, a linear layer from image embedding and pose, [d + 4], to the UNet's one
token of context, [d]. They are read from one file, as `ldm_pipeline` says, or from a port to
diffusers: a folder as in `weights`, but with
    image_encoder             config.json, model.safetensors (CLIPVisionModelWithProjection)
    cc_projection             diffusion_pytorch_model.safetensors: projection.{weight,bias}
    or clip_camera_projection diffusion_pytorch_model.safetensors: proj.{weight,bias}
and no text_encoder or tokenizer. "pose" in model_index.json, our entry, says what the pose's last
number is, as in `ldm_config`; "fov_deg", ours too, the vertical field of view of the pictures that
it was trained on, where that is not Zero-1-to-3's. The first is that of github.com/kxhit/zero123-hf
(kxic/zero123-xl on the hub), the second that of ashawkey/zero123-xl-diffusers and
ashawkey/stable-zero123-diffusers.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dsd_jax.models.clip_vision import ClipVision
from dsd_jax.models.clip_vision import param_shapes as clip_vision_param_shapes
from dsd_jax.models.config import ClipVisionConfig, UNetConfig, VAEConfig
from dsd_jax.models.entries import shown
from dsd_jax.models.ldm import cc_projection_shapes, unet_config
from dsd_jax.models.ldm_config import (
    LAST_NUMBER,
    POSES,
    checked_pose,
    image_encoder_config,
    read_config,
    vae_config,
)
from dsd_jax.models.ldm_pipeline import read_parts
from dsd_jax.models.networks import unet_param_shapes, vae_param_shapes
from dsd_jax.models.unet import UNet
from dsd_jax.models.vae import AutoencoderKL
from dsd_jax.models.weights import (
    read_configs,
    read_index,
    read_part,
    read_scheduler,
    save_parts,
)

# Vertical field of view, degrees, of the pictures that Zero-1-to-3 was trained on.
FOV_DEG = 49.1
PROJECTIONS = ("cc_projection", "clip_camera_projection")
_MODEL_INDEX = {
    "_class_name": "Zero1to3StableDiffusionPipeline",
    "cc_projection": ["pipeline_zero1to3", "CCProjection"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


class ImageNetworks(NamedTuple):
    """Flax modules, named as the folders that hold their weights. Hashable."""

    unet: UNet
    vae: AutoencoderKL
    image_encoder: ClipVision


class ImagePipeline(NamedTuple):
    """What a folder or a file holds.

    Attributes:
        params: {"unet", "vae", "image_encoder", "cc_projection"}.
        scheduler: the dictionary of scheduler_config.json.
    """

    networks: ImageNetworks
    params: dict
    scheduler: dict


def build(unet: dict, vae: dict, image_encoder: dict, dtype=jnp.float32) -> ImageNetworks:
    """The modules described by the three config.json dictionaries, computing in `dtype`.

    Raises ValueError for an unsupported entry, or for parts that do not go together.
    """
    u, v, i = (
        UNetConfig.from_dict(unet),
        VAEConfig.from_dict(vae),
        ClipVisionConfig.from_dict(image_encoder),
    )
    if u.cross_attention_dim != i.projection_dim:
        raise ValueError(
            f"the unet takes a context of width {u.cross_attention_dim}, "
            f"the image encoder gives {i.projection_dim}"
        )
    if (u.in_channels, u.out_channels) != (2 * v.latent_channels, v.latent_channels):
        raise ValueError(
            f"the unet takes {u.in_channels} channels and predicts {u.out_channels}; with a vae of "
            f"{v.latent_channels} that has to be {2 * v.latent_channels} and {v.latent_channels}"
        )
    dtype = jnp.dtype(dtype)
    return ImageNetworks(UNet(u, dtype), AutoencoderKL(v, dtype), ClipVision(i, dtype))


def param_shapes(networks: ImageNetworks) -> dict:
    """A jax.ShapeDtypeStruct for each parameter, in the tree of `ImagePipeline.params`."""
    return {
        "unet": unet_param_shapes(networks.unet),
        "vae": vae_param_shapes(networks.vae),
        "image_encoder": clip_vision_param_shapes(networks.image_encoder),
        "cc_projection": cc_projection_shapes(networks.unet.config),
    }


def is_image_model(names: Iterable[str]) -> bool:
    """Whether a folder with files of these names is driven by an image instead of a prompt."""
    folders = {name.partition("/")[0] for name in names}
    return "image_encoder" in folders and "text_encoder" not in folders


def projection_of(names: Iterable[str]) -> str:
    """The one of `PROJECTIONS` that a folder with files of these names has; else the first."""
    folders = {name.partition("/")[0] for name in names}
    return next((name for name in PROJECTIONS if name in folders), PROJECTIONS[0])


def pose_of(folder: Path, asked: str | None = None) -> str:
    """What the pose's last number is for a folder, which is `asked` where its files do not say it.

    Tensors and configurations of Zero123-XL and of Stable Zero123 look the same.
    Raises ValueError where neither says it, or they differ, and as `weights.read_index` does.
    """
    said = read_index(folder).get("pose")
    pose = checked_pose(folder / "model_index.json", said, asked)
    if pose is None:
        raise ValueError(
            f"{folder}: nothing in its files tells Zero-1-to-3 from Stable Zero123; {LAST_NUMBER}"
        )
    return pose


def fov_deg_of(folder: Path) -> float:
    """The vertical field of view, degrees, of the training pictures of a folder's model.

    Raises ValueError where its entry is no angle, and as `weights.read_index` does.
    """
    said = read_index(folder).get("fov_deg", FOV_DEG)
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said < 180:
        place = folder / "model_index.json"
        raise ValueError(f"{place}: fov_deg has to lie inside 0..180, got {shown(said)}")
    return float(said)


def load_folder(folder, dtype=jnp.float32, param_dtype=None) -> ImagePipeline:
    """Reads a port to diffusers; parameters are NumPy arrays of `param_dtype` (default `dtype`).

    `dtype` is the type the networks compute in. Raises as `models.weights.load_pipeline` does.
    """
    folder = Path(folder)
    networks, scheduler = read_networks(folder, dtype), read_scheduler(folder)
    shapes = param_shapes(networks)
    param_dtype = jnp.dtype(dtype if param_dtype is None else param_dtype)
    folders = {part: part for part in shapes}
    folders["cc_projection"] = projection_of(path.name for path in folder.iterdir())
    params = {
        part: read_part(folder, folders[part], tree, param_dtype) for part, tree in shapes.items()
    }
    return ImagePipeline(networks, params, scheduler)


def read_networks(folder: Path, dtype=jnp.float32) -> ImageNetworks:
    """The networks that a folder's config.json files describe; no weights are needed.

    Raises as `load_folder` does.
    """
    configs = read_configs(folder, ImageNetworks._fields)
    try:
        return build(**configs, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def save_folder(
    folder, pipeline: ImagePipeline, vae: str, fov_deg: float = FOV_DEG, dtype=np.float16
) -> None:
    """Writes the port with cc_projection, but for the VAE, which stays in another folder.

    The pose's last number is a distance.

    `vae` is the path of the pipeline's folder that holds it, seen from `folder`; `fov_deg` is as of
    `fov_deg_of`; `dtype` is float16 or float32. Raises as `models.weights.save_pipeline` does.
    """
    networks = pipeline.networks
    configs = {
        "unet": networks.unet.config.to_dict(),
        "image_encoder": networks.image_encoder.config.to_dict(),
        "cc_projection": {"_class_name": "CCProjection"},
    }
    index = {**_MODEL_INDEX, "shared": {"vae": vae}, "pose": POSES[0], "fov_deg": fov_deg}
    save_parts(Path(folder), configs, pipeline.params, pipeline.scheduler, index, dtype)


def load_single_file(
    file, dtype=jnp.float32, param_dtype=None, config: dict | None = None
) -> ImagePipeline:
    """Reads a checkpoint of the original code, as `load_folder` does a port.

    `config` is what `ldm_config.read_config` gives, if at hand. Raises as
    `models.ldm_pipeline.load_single_file` does.
    """
    file = Path(file)
    config = read_config(file) if config is None else config
    if "image_encoder" not in config:
        raise ValueError(f"{file} takes a prompt, not an image: read it by priors.load_prior")
    return ImagePipeline(
        *read_parts(file, config, build_networks, param_shapes, dtype, param_dtype)
    )


def build_networks(config: dict, dtype=jnp.float32) -> ImageNetworks:
    """The networks that a JSON file describes. Raises ValueError for an unsupported entry."""
    unet = unet_config(config["unet"]).to_dict()
    image_encoder = image_encoder_config(config["image_encoder"])
    return build(unet, vae_config(config["vae"]), image_encoder, dtype)
