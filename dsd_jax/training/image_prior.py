"""The prior of novel views: its configuration, where its weights start, and its folder.

It has the autoencoder of another prior, which is neither trained nor stored a second time.
"""

import shutil
from pathlib import Path

import jax
import numpy as np

from dsd_jax.models import zero123
from dsd_jax.models.networks import init_params
from dsd_jax.models.tensor_files import read_json
from dsd_jax.models.weights import read_part
from dsd_jax.models.zero123 import ImageNetworks, ImagePipeline
from dsd_jax.rendering.cameras import FOV_DEG
from dsd_jax.training import growing
from dsd_jax.training.export import SCHEDULER


def configs(resolution: int, latent: int, channels: int, small: bool = False) -> tuple[dict, dict]:
    """config.json dictionaries of unet and image encoder; `small` is for trials.

    `latent` is the side of a latent of `channels` channels.
    """
    levels, width = ((16, 32), 32) if small else ((96, 128), 96)
    unet = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": latent,
        "in_channels": 2 * channels,
        "out_channels": channels,
        "block_out_channels": list(levels),
        "down_block_types": ["CrossAttnDownBlock2D"] * len(levels),
        "up_block_types": ["CrossAttnUpBlock2D"] * len(levels),
        "layers_per_block": 1,
        "cross_attention_dim": width,
        "attention_head_dim": [max(1, c // 32) for c in levels],
        "use_linear_projection": True,
        "norm_num_groups": 16,
    }
    image_encoder = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 1 if small else 4,
        "num_attention_heads": width // 32,
        "image_size": resolution,
        "patch_size": resolution // 8,
        "hidden_act": "gelu",
        "projection_dim": width,
    }
    return unet, image_encoder


def build(vae: Path, resolution: int, small: bool, dtype) -> tuple[ImageNetworks, dict]:
    """The networks, and the weights of the autoencoder in the pipeline's folder `vae`.

    Raises FileNotFoundError or ValueError where there is none that is supported.
    """
    config = read_json(vae / "vae" / "config.json")
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    parts = configs(resolution, resolution // factor, config["latent_channels"], small)
    networks = zero123.build(parts[0], config, parts[1], dtype)
    shapes = zero123.param_shapes(networks)["vae"]
    return networks, read_part(vae, "vae", shapes, np.float32)


def trained_shapes(networks: ImageNetworks) -> dict:
    """A jax.ShapeDtypeStruct for each parameter that is trained: of all parts but the VAE."""
    shapes = zero123.param_shapes(networks)
    return {part: tree for part, tree in shapes.items() if part != "vae"}


def start(networks: ImageNetworks, key) -> dict:
    """Random weights of the parts that are trained.

    The pose, of 4 numbers, starts with as much weight as the embedding, of d.
    """
    params = init_params(networks, key, trained_shapes)
    kernel = params["cc_projection"]["kernel"]
    d = kernel.shape[1]
    params["cc_projection"]["kernel"] = kernel.at[d:].multiply((d / 4) ** 0.5)
    return params


def load(folder: Path, networks: ImageNetworks) -> dict:
    """The trained parts of an exported folder, to continue from; its latents may be narrower.

    Raises ValueError where something else has another shape than in `networks`, and as
    `models.zero123.load_folder` does.
    """
    fresh = start(networks, jax.random.key(0))
    layers = {"unet": growing.UNET_OF_PAIRS}
    return growing.all_grown(folder, zero123.load_folder(folder).params, fresh, layers)


def save(folder: Path, networks: ImageNetworks, params: dict, vae: Path) -> None:
    """Write the trained parts (float16), and beside `folder` a copy of the autoencoder of `vae`.

    It bears the name of that pipeline, so that `folder` may move to where the pipeline itself lies.
    """
    pipeline = ImagePipeline(networks, params, SCHEDULER)
    zero123.save_folder(folder, pipeline, f"../{vae.name}", FOV_DEG)
    shutil.copytree(vae / "vae", folder.parent / vae.name / "vae", dirs_exist_ok=True)
