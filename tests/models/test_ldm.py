"""ldm.py: tiny_sd renamed by the table in conftest.py, and what is refused.

MVDream's and Zero-1-to-3's own values: tests/parity.
"""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ldm_files import load_cc_projection, load_unet
from safetensors.numpy import save_file

from dsd_jax.models.config import UNetConfig
from dsd_jax.models.ldm import modules, rename, unet_config
from dsd_jax.models.weights import load_pipeline

PREFIX = "model.diffusion_model."
# tiny_sd (attention at the fine level and in the middle), with a camera added.
TINY = {
    **json.loads((Path(__file__).parent / "tiny_sd_ldm.json").read_text())["unet"],
    "transformer_depth": 1,
    "camera_dim": 6,
    "use_checkpoint": False,
    "legacy": False,
}
MVDREAM = {
    **TINY,
    "image_size": 32,
    "model_channels": 320,
    "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attention_resolutions": [4, 2, 1],
    "num_head_channels": 64,
    "context_dim": 1024,
    "camera_dim": 16,
}
STABLE_DIFFUSION_2 = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 2,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "sample_size": 32,
}


pytestmark = pytest.mark.usefixtures("quick_compilation")


def without(config, *names):
    return {name: value for name, value in config.items() if name not in names}


def relative(found, expected):
    return np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected)


@pytest.fixture(scope="module")
def tensors(ldm_unet):
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (128, 6), "0.bias": (128,), "2.weight": (128, 128), "2.bias": (128,)}
    camera = {f"camera_embed.{k}": rng.normal(size=s).astype("f") for k, s in shapes.items()}
    return camera | ldm_unet


@pytest.fixture(scope="module")
def pipeline(tiny_sd):
    return load_pipeline(tiny_sd)


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("", {}),
        ("", {"cc_projection.bias": np.zeros(32)}),
        (PREFIX, {"first_stage_model.quant_conv.bias": np.zeros(8), "betas": np.zeros(1000)}),
    ],
)
def test_a_renamed_model_is_read_exactly(tensors, pipeline, tmp_path, prefix, others):
    file = tmp_path / "unet.safetensors"
    save_file({prefix + key: tensor for key, tensor in tensors.items()} | others, file)
    config, params = load_unet(file, TINY)
    assert config == replace(pipeline.networks.unet.config, camera_dim=6)
    camera = params.pop("camera_embedding")
    jax.tree.map(np.testing.assert_array_equal, params, pipeline.params["unet"])
    for layer, theirs in (("linear_1", "0"), ("linear_2", "2")):
        weight, bias = (tensors[f"camera_embed.{theirs}.{leaf}"] for leaf in ("weight", "bias"))
        np.testing.assert_array_equal(camera[layer]["kernel"], weight.T)
        np.testing.assert_array_equal(camera[layer]["bias"], bias)


def test_parameters_take_the_type_asked_for(tensors, tmp_path):
    save_file(tensors, tmp_path / "unet.safetensors")
    _, params = load_unet(tmp_path / "unet.safetensors", TINY, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"out.2.bias": None, "input_blocks.1.1.proj_in.weight": None},
            r"tensor input_blocks\.1\.1\.proj_in\.weight \[32, 32\] is missing",
        ),
        (
            {"time_embed.0.weight": (32, 128)},
            r"time_embed\.0\.weight has shape \[32, 128\], .* asks for \[128, 32\]",
        ),
        ({"label_emb.0.0.bias": (128,)}, r"tensor label_emb\.0\.0\.bias \[128\] has no place"),
        ({"output_blocks.1.2.conv.bias": (64,)}, r"output_blocks\.1\.2\.conv\.bias .* no place"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(tensors, changed, tmp_path, changes, message):
    spoilt = {PREFIX + key: tensor for key, tensor in changed(tensors, changes).items()}
    save_file(spoilt, tmp_path / "unet.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        load_unet(tmp_path / "unet.safetensors", TINY)
    assert "\n" not in str(error.value)


def test_cc_projection_is_read_and_checked(tmp_path):
    weight, bias = np.arange(32 * 36, dtype="f").reshape(32, 36), np.arange(32, dtype="f")
    file = tmp_path / "model.safetensors"
    stored = {"cc_projection.weight": weight, "cc_projection.bias": bias, "betas": bias}
    save_file(stored, file)
    layer = load_cc_projection(file, TINY)
    np.testing.assert_array_equal(layer["kernel"], weight.T)
    np.testing.assert_array_equal(layer["bias"], bias)
    save_file(without(stored, "cc_projection.weight"), file)
    with pytest.raises(ValueError, match=r"cc_projection\.weight \[32, 36\] is missing"):
        load_cc_projection(file, TINY)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors is missing"):
        load_unet(tmp_path / "none.safetensors", TINY)
    (tmp_path / "a.safetensors").write_bytes(b"abc")
    with pytest.raises(ValueError, match=r"a\.safetensors cannot be read as safetensors"):
        load_unet(tmp_path / "a.safetensors", TINY)


def test_mvdream_is_stable_diffusion_2_with_a_camera():
    expected = UNetConfig.from_dict({**STABLE_DIFFUSION_2, "camera_dim": 16})
    assert unet_config(MVDREAM) == expected


def test_zero123_is_stable_diffusion_1_with_the_image_on_its_input():
    config = {**MVDREAM, "in_channels": 8, "context_dim": 768, "num_heads": 8}
    names = ("num_head_channels", "use_linear_in_transformer", "camera_dim")
    changes = {"attention_head_dim": 8, "cross_attention_dim": 768, "use_linear_projection": False}
    expected = UNetConfig.from_dict({**STABLE_DIFFUSION_2, **changes, "in_channels": 8})
    assert unet_config(without(config, *names)) == expected


def test_entries_of_the_configuration():
    assert unet_config({**TINY, "num_head_channels": -1, "num_heads": 4}).heads == (4, 4)
    # As in the original, the width of a head goes first.
    assert unet_config({**TINY, "num_heads": 4}).heads == (2, 4)
    assert unet_config({**TINY, "num_res_blocks": [1, 2]}).layers_per_block == (1, 2)
    assert len(unet_config(without(TINY, "channel_mult")).block_out_channels) == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (without(TINY, "context_dim"), "entry context_dim is missing"),
        (without(TINY, "use_spatial_transformer"), "entry use_spatial_transformer is missing"),
        (without(TINY, "num_head_channels"), "entry num_heads or num_head_channels is missing"),
        ({**TINY, "ip_dim": 16}, "entry ip_dim is not supported"),
        ({**TINY, "num_classes": 1000}, "num_classes = 1000 is not supported, only None"),
        ({**TINY, "use_spatial_transformer": False}, "use_spatial_transformer = False is not"),
        ({**TINY, "num_head_channels": 24}, "32 channels must be a multiple of num_head_ch.* = 24"),
        ({**TINY, "num_head_channels": -1, "num_heads": 5}, "must be a multiple of 5 heads"),
        ({**TINY, "num_res_blocks": [1, 2, 2]}, "num_res_blocks needs 2 positive integers"),
        ({**TINY, "context_dim": "32"}, "context_dim needs 1 positive integers, got '32'"),
        ({**TINY, "model_channels": 24}, "24 channels must be a multiple of"),
    ],
)
def test_unsupported_configs_are_refused(config, message):
    with pytest.raises(ValueError, match=f"^unet config: .*{message}") as error:
        unet_config(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        # Places known from Stable Diffusion's files: levels with and without attention.
        ("time_embed.2.bias", "time_embedding.linear_2.bias"),
        ("camera_embed.0.weight", "camera_embedding.linear_1.weight"),
        ("input_blocks.2.0.emb_layers.1.bias", "down_blocks.0.resnets.1.time_emb_proj.bias"),
        ("input_blocks.3.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"),
        ("input_blocks.8.1.proj_in.weight", "down_blocks.2.attentions.1.proj_in.weight"),
        ("input_blocks.11.0.in_layers.2.bias", "down_blocks.3.resnets.1.conv1.bias"),
        ("middle_block.2.out_layers.3.weight", "mid_block.resnets.1.conv2.weight"),
        ("output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
        ("output_blocks.5.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"),
        (
            "output_blocks.10.1.transformer_blocks.0.attn1.to_out.0.bias",
            "up_blocks.3.attentions.1.transformer_blocks.0.attn1.to_out.0.bias",
        ),
        ("output_blocks.11.0.skip_connection.bias", "up_blocks.3.resnets.2.conv_shortcut.bias"),
    ],
)
def test_names_are_translated_both_ways(theirs, ours):
    table = modules(unet_config(MVDREAM))
    assert rename(theirs, table) == ours
    assert rename(ours, {b: a for a, b in table.items()}) == theirs


@pytest.mark.parametrize(
    "key",
    ["label_emb.0.0.weight", "input_blocks.12.0.in_layers.0.weight", "input_blocks.10.1.norm.bias",
     "input_blocks.1.0.in_layers.1.weight", "output_blocks.11.2.conv.weight"],
)  # fmt: skip
def test_names_without_a_place_are_refused(key):
    with pytest.raises(ValueError, match=f"tensor {key} has no place"):
        rename(key, modules(unet_config(MVDREAM)))
    with pytest.raises(ValueError, match=r"camera_embed\.0\.weight has no place"):
        rename("camera_embed.0.weight", modules(unet_config(without(MVDREAM, "camera_dim"))))
