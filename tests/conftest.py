"""What many tests need: quick compiling, and a tiny latent prior in diffusers' folder layout."""

import json
from pathlib import Path

import numpy as np
import pytest

from dsd_jax.data.tokenizer import train_tokenizer
from dsd_jax.models.networks import build, param_shapes
from dsd_jax.models.weights import Pipeline, save_pipeline


@pytest.fixture(scope="module")
def quick_compilation():
    """For programs that run for milliseconds: compiling them well would take seconds."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def tiny_prior_folder(tmp_path_factory) -> Path:
    """Images 16 x 16, latents 4 x 4 x 4, camera conditioning; knows the words "a red house"."""
    import jax

    folder = tmp_path_factory.mktemp("prior")
    vocabulary = train_tokenizer(["a red house"], folder / "words", max_length=8)
    networks = build(
        {
            "block_out_channels": [8, 16],
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "layers_per_block": 1,
            "attention_head_dim": [1, 2],
            "norm_num_groups": 4,
            "cross_attention_dim": 16,
            "use_linear_projection": True,
            "sample_size": 4,
            "camera_dim": 16,
        },
        {
            "block_out_channels": [4, 8, 8],
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "sample_size": 16,
            "scaling_factor": 1.0,
        },
        {
            "vocab_size": vocabulary,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 8,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
        },
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), param_shapes(networks)
    )
    save_pipeline(folder, Pipeline(networks, params), tokenizer=folder / "words", dtype=np.float32)
    (folder / "words.json").write_text(json.dumps({"a": 1, "red": 1, "house": 2}))
    return folder
