"""Small random networks for the tests of models/, and tiny_sd under other names."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dsd_jax.models import ldm_pipeline
from dsd_jax.models.networks import Networks, build, param_shapes

CHANNELS = (32, 64)
# Modules of tiny_sd's unet -> their names in the latent-diffusion layout.
MODULES = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
    "up_blocks.1.attentions.1": "output_blocks.3.1",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
# Modules of tiny_sd's vae, and their names in the latent-diffusion layout.
VAE_MODULES = dict(
    line.split()
    for line in """
    quant_conv                              quant_conv
    post_quant_conv                         post_quant_conv
    encoder.conv_in                         encoder.conv_in
    encoder.down_blocks.0.resnets.0         encoder.down.0.block.0
    encoder.down_blocks.0.downsamplers.0    encoder.down.0.downsample
    encoder.down_blocks.1.resnets.0         encoder.down.1.block.0
    encoder.down_blocks.1.downsamplers.0    encoder.down.1.downsample
    encoder.down_blocks.2.resnets.0         encoder.down.2.block.0
    encoder.down_blocks.2.downsamplers.0    encoder.down.2.downsample
    encoder.down_blocks.3.resnets.0         encoder.down.3.block.0
    encoder.mid_block.resnets.0             encoder.mid.block_1
    encoder.mid_block.attentions.0          encoder.mid.attn_1
    encoder.mid_block.resnets.1             encoder.mid.block_2
    encoder.conv_norm_out                   encoder.norm_out
    encoder.conv_out                        encoder.conv_out
    decoder.conv_in                         decoder.conv_in
    decoder.mid_block.resnets.0             decoder.mid.block_1
    decoder.mid_block.attentions.0          decoder.mid.attn_1
    decoder.mid_block.resnets.1             decoder.mid.block_2
    decoder.up_blocks.0.resnets.0           decoder.up.3.block.0
    decoder.up_blocks.0.resnets.1           decoder.up.3.block.1
    decoder.up_blocks.0.upsamplers.0        decoder.up.3.upsample
    decoder.up_blocks.1.resnets.0           decoder.up.2.block.0
    decoder.up_blocks.1.resnets.1           decoder.up.2.block.1
    decoder.up_blocks.1.upsamplers.0        decoder.up.2.upsample
    decoder.up_blocks.2.resnets.0           decoder.up.1.block.0
    decoder.up_blocks.2.resnets.1           decoder.up.1.block.1
    decoder.up_blocks.2.upsamplers.0        decoder.up.1.upsample
    decoder.up_blocks.3.resnets.0           decoder.up.0.block.0
    decoder.up_blocks.3.resnets.1           decoder.up.0.block.1
    decoder.conv_norm_out                   decoder.norm_out
    decoder.conv_out                        decoder.conv_out
    """.strip().splitlines()
)
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


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


@pytest.fixture(scope="session")
def ldm_unet(tiny_sd):
    """The tensors of tiny_sd's unet under their names in the latent-diffusion layout."""
    stored = load_file(tiny_sd / "unet" / "diffusion_pytorch_model.safetensors")
    return {_ldm_name(key): tensor for key, tensor in stored.items()}


def _ldm_name(key):
    """A key of tiny_sd's unet -> its name in the latent-diffusion layout."""
    (module,) = (module for module in MODULES if key.startswith(f"{module}."))
    rest = key.removeprefix(f"{module}.")
    if ".resnets." in module:
        part, leaf = rest.split(".")
        rest = f"{RESNET[part]}.{leaf}"
    return f"{MODULES[module]}.{rest}"


@pytest.fixture(scope="session")
def ldm_checkpoint(tiny_sd, ldm_unet):
    """The whole of tiny_sd, and what else lies in the files of Stable Diffusion 1.x."""
    vae = load_file(tiny_sd / "vae/diffusion_pytorch_model.safetensors")
    text = load_file(tiny_sd / "text_encoder/model.safetensors")
    return {
        **{"model.diffusion_model." + key: tensor for key, tensor in ldm_unet.items()},
        **dict(_ldm_vae(key, tensor) for key, tensor in vae.items()),
        **{f"cond_stage_model.transformer.{key}": tensor for key, tensor in text.items()},
        "cond_stage_model.transformer.text_model.embeddings.position_ids": np.arange(77)[None],
        "betas": np.zeros(1000),
        "alphas_cumprod_prev": np.zeros(1000),
        "sqrt_one_minus_alphas_cumprod": np.zeros(1000),
        "log_one_minus_alphas_cumprod": np.zeros(1000),
        "posterior_mean_coef1": np.zeros(1000),
        "model_ema.decay": np.zeros(()),
    }


def _ldm_vae(key, tensor):
    """A tensor of tiny_sd's vae in the latent-diffusion layout."""
    (module,) = (module for module in VAE_MODULES if key.startswith(f"{module}."))
    rest = key.removeprefix(f"{module}.")
    if ".attentions." in module:
        layer, leaf = rest.rsplit(".", 1)
        rest = f"{VAE_ATTENTION[layer]}.{leaf}"
        tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
    return f"first_stage_model.{VAE_MODULES[module]}.{rest}", tensor


@pytest.fixture(scope="session")
def ldm_config():
    """The JSON file of `ldm_checkpoint`."""
    return json.loads((Path(__file__).parent / "tiny_sd_ldm.json").read_text())


@pytest.fixture(scope="session")
def changed():
    """(tensors, {name: shape of zeros to put there, or None to drop it}) -> changed tensors."""

    def change(tensors, changes):
        kept = {name: tensor for name, tensor in tensors.items() if name not in changes}
        put = {name: np.zeros(shape) for name, shape in changes.items() if shape is not None}
        return kept | put

    return change


@pytest.fixture
def write_checkpoint(tmp_path, ldm_config):
    """(tensors, content of the JSON file) -> the safetensors file, after both are written."""

    def write(tensors, config=ldm_config):
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "model.json").write_text(json.dumps(config))
        return tmp_path / "model.safetensors"

    return write


@pytest.fixture(scope="module")
def traced_once():
    """`load_single_file` traces each network once, which takes most of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ldm_pipeline, "param_shapes", functools.cache(ldm_pipeline.param_shapes))
        yield
