"""Shapes of published models as the dictionaries of their config.json, and random weights for them.

No weights are here: with random ones memory, speed and parity are those of the real model.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from dsd_jax.models import keys

_UNET_15 = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "norm_num_groups": 32,
}
_UNET_21 = {
    **_UNET_15,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
_CLIP_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "projection_dim": 768,
}
_OPENCLIP_H = {
    **_CLIP_L,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,  # of 24: the last one is left out by those who use it
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
UNET_ZERO123 = {**_UNET_15, "in_channels": 8, "sample_size": 32}
CLIP_VISION_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}


class Architecture(NamedTuple):
    """Dictionaries for `models.networks.build`."""

    unet: dict
    vae: dict
    text_encoder: dict


ARCHITECTURES = {
    "sd15": Architecture(_UNET_15, VAE, _CLIP_L),
    "sd21-base": Architecture(_UNET_21, VAE, _OPENCLIP_H),
}


def random_params(shapes: dict, seed: int = 0) -> dict:
    """NumPy float32 parameters in the tree of `shapes`, the same for one seed on every machine.

    Kernels have variance 1 / fan-in, embeddings 0.02^2, biases 0 and scales 1, so that activations
    stay of the order of 1; `conv_out` has twice the variance, which makes up for the SiLU before
    it. Every parameter has its own random stream, so that they are drawn side by side.
    """

    def draw(item):
        index, (path, leaf) = item
        if path[-1] in ("bias", "scale"):
            return path, np.full(leaf.shape, path[-1] == "scale", np.float32)
        fan_in = leaf.size // leaf.shape[-1]
        variance = 0.02**2 if path[-1] in ("embedding", "class_embedding") else 1 / fan_in
        array = np.random.default_rng([seed, index]).standard_normal(leaf.shape, np.float32)
        array *= np.float32((variance * (2 if path[-2] == "conv_out" else 1)) ** 0.5)
        return path, array

    with ThreadPoolExecutor() as pool:
        return keys.unflatten(dict(pool.map(draw, enumerate(keys.flatten(shapes).values()))))
