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
        (UNetConfig, {**UNET, "attention_head_dim": 0}, "attention_head_dim needs 2 .* got 0"),
        (UNetConfig, {**UNET, "attention_head_dim": []}, r"attention_head_dim needs .* got \[\]"),
        (UNetConfig, {**UNET, "attention_head_dim": False}, "attention_head_dim .* got False"),
        (UNetConfig, {**UNET, "num_attention_heads": 0}, "num_attention_heads .* got 0"),
        (UNetConfig, {**UNET, "transformer_layers_per_block": 0}, "layers_per_block .* got 0"),
        (UNetConfig, {}, "entry block_out_channels is missing"),
        (
            UNetConfig,
            {**UNET, "block_out_channels": "wide"},
            "1 to 8 entries, got 'wide'",
        ),
        (UNetConfig, {**UNET, "block_out_channels": [32, 10**8]}, "from 2 to 8192, got 100000000"),
        (UNetConfig, {**UNET, "block_out_channels": [0, 64]}, "from 2 to 8192, got 0"),
        (UNetConfig, {**UNET, "block_out_channels": [32] * 99}, "a list of 1 to 8 entries"),
        (UNetConfig, {**UNET, "norm_num_groups": 0}, "norm_num_groups needs a whole number"),
        (UNetConfig, {**UNET, "norm_num_groups": "32"}, "norm_num_groups .* got '32'"),
        (UNetConfig, {**UNET, "in_channels": True}, "in_channels .* got True"),
        (UNetConfig, {**UNET, "sample_size": -16}, "sample_size .* got -16"),
        (UNetConfig, {**UNET, "sample_size": 9}, "sample_size 9 must be a multiple of 2"),
        (UNetConfig, {**UNET, "norm_eps": float("nan")}, "norm_eps needs a number .* got nan"),
        (UNetConfig, {**UNET, "use_linear_projection": "no"}, "true or false, got 'no'"),
        (UNetConfig, {**UNET, "down_block_types": {"a": 1}}, "down_block_types needs a list"),
        (UNetConfig, {**UNET, "down_block_types": [[], None]}, r"down_block_types has \[\]"),
        (UNetConfig, {**UNET, "transformer_layers_per_block": 64}, "makes more than 160 transf"),
        (VAEConfig, {"_class_name": "AsymmetricAutoencoderKL"}, "'AsymmetricAutoencoderKL' is not"),
        (VAEConfig, {"_class_name": None}, "None is not supported, only AutoencoderKL"),
        (VAEConfig, {"block_out_channels": [32] * 40}, "a list of 1 to 8 entries"),
        (VAEConfig, {"block_out_channels": [32], "in_channels": 5}, "from 3 to 4, got 5"),
        (VAEConfig, {"block_out_channels": [32], "in_channels": 4}, "4 and out_channels 3 have to"),
        (VAEConfig, {"block_out_channels": [32], "scaling_factor": None}, "scaling_factor needs"),
        (ClipTextConfig, {**CLIP, "num_hidden_layers": 3000}, "num_hidden_layers .* got 3000"),
        (ClipTextConfig, {**CLIP, "hidden_act": ["gelu"]}, "hidden_act"),
        (ClipTextConfig, {**CLIP, "eos_token_id": [2]}, "eos_token_id .* got "),
        (ClipVisionConfig, {**CLIP, "patch_size": 0}, "patch_size .* got 0"),
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
