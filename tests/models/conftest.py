"""Small random networks for the tests of models/."""

import jax
import numpy as np
import pytest

from dsd_jax.models.networks import Networks, build, param_shapes

CHANNELS = (32, 64)


@pytest.fixture(scope="session")
def configs():
    """config.json dictionaries of a two-level pipeline with a camera."""
    return {
        "unet": {
            "block_out_channels": list(CHANNELS),
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "layers_per_block": 1,
            "attention_head_dim": [2, 4],
            "cross_attention_dim": 24,
            "use_linear_projection": True,
            "sample_size": 8,
            "camera_dim": 16,
        },
        "vae": {"block_out_channels": list(CHANNELS), "layers_per_block": 1, "sample_size": 16},
        "text_encoder": {
            "vocab_size": 40,
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 8,
            "bos_token_id": 38,
            "eos_token_id": 39,
        },
    }


@pytest.fixture(scope="session")
def networks(configs) -> Networks:
    return build(**configs)


@pytest.fixture(scope="session")
def params(networks):
    """Random values everywhere (`init_params` starts some layers at zero)."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        around = 1.0 if path[-1].key == "scale" else 0.0
        fan_in = max(1, leaf.size // leaf.shape[-1])
        return (around + rng.normal(size=leaf.shape) / fan_in**0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, param_shapes(networks))
