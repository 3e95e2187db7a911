"""config.py: reading, writing, refusing."""

import pytest

from dsd_jax.models.config import ClipTextConfig, ClipVisionConfig, UNetConfig, VAEConfig

UNET = {
    "block_out_channels": [32, 64],
    "cross_attention_dim": 24,
    "sample_size": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
CLIP = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def test_unet_levels_run_from_fine_to_coarse():
    config = UNetConfig.from_dict(UNET)
    assert config.down_attention == config.up_attention == (True, False)
    assert config.heads == (8, 8) and config.layers_per_block == (2, 2)


@pytest.mark.parametrize(
    ("extra", "heads"),
    [
        ({"attention_head_dim": 4}, (4, 4)),
        ({"attention_head_dim": [2, 4]}, (2, 4)),
        ({"attention_head_dim": 8, "num_attention_heads": [4, 8]}, (4, 8)),
        ({"attention_head_dim": 4, "num_attention_heads": None}, (4, 4)),
    ],
)
def test_attention_head_dim_is_the_number_of_heads(extra, heads):
    assert UNetConfig.from_dict({**UNET, **extra}).heads == heads


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (UNetConfig, {**UNET, "camera_dim": 16, "layers_per_block": [1, 2], "in_channels": 8}),
        (VAEConfig, {"block_out_channels": [32, 64], "scaling_factor": 0.5}),
        (ClipTextConfig, {**CLIP, "hidden_act": "gelu"}),
        (ClipVisionConfig, {**CLIP, "patch_size": 14, "projection_dim": 768}),
    ],
)
def test_written_configs_read_back(kind, config):
    parsed = kind.from_dict(config)
    assert kind.from_dict(parsed.to_dict()) == parsed


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        (UNetConfig, {**UNET, "class_embed_type": "timestep"}, "class_embed_type = 'timestep'"),
        (
            UNetConfig,
            {**UNET, "down_block_types": ["A", "DownBlock2D"]},
            "down_block_types has 'A'",
        ),
        (UNetConfig, {**UNET, "block_out_channels": [32, 64, 64]}, "3 levels need 3"),
        (UNetConfig, {**UNET, "attention_head_dim": [2]}, "attention_head_dim needs 2 positive"),
        (UNetConfig, {**UNET, "attention_head_dim": 5}, "multiple of 5 heads"),
        (UNetConfig, {}, "entry block_out_channels is missing"),
        (UNetConfig, {**UNET, "sample_size": None}, "entry sample_size is missing"),
        (VAEConfig, {"block_out_channels": [32], "shift_factor": 0.1}, "shift_factor = 0.1"),
        (VAEConfig, {"block_out_channels": [16]}, "16 channels must be a multiple of 32"),
        (VAEConfig, {"block_out_channels": [32], "up_block_types": ["B"]}, "up_block_types may"),
        (ClipTextConfig, {**CLIP, "hidden_act": "relu"}, "hidden_act 'relu'"),
        (ClipTextConfig, {**CLIP, "num_attention_heads": 5}, "multiple of 5 attention heads"),
        (ClipTextConfig, {}, "entry vocab_size is missing"),
        (ClipVisionConfig, {**CLIP, "hidden_act": "relu"}, "image_encoder config: hidden_act 'rel"),
        (ClipVisionConfig, {**CLIP, "patch_size": 15}, "image_size 224 must be a multiple of pat"),
        (ClipVisionConfig, {}, "entry hidden_size is missing"),
    ],
)
def test_unsupported_configs_are_refused(kind, config, message):
    with pytest.raises(ValueError, match=message):
        kind.from_dict(config)
