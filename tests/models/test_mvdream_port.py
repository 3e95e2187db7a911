"""weights.py and ldm.py on MVDream's port to diffusers, and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dsd_jax.models.ldm import is_port, port_config
from dsd_jax.models.ldm_pipeline import load_single_file
from dsd_jax.models.weights import load_pipeline

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
# unet/config.json of the published port of sd-v2.1-base-4view.
PUBLISHED = {
    "_class_name": "MultiViewUNetModel",
    "_diffusers_version": "0.25.0",
    "attention_resolutions": [4, 2, 1],
    "camera_dim": 16,
    "channel_mult": [1, 2, 4, 4],
    "context_dim": 1024,
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 320,
    "num_head_channels": 64,
    "num_res_blocks": 2,
    "out_channels": 4,
    "transformer_depth": 1,
    "use_checkpoint": False,
}

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_the_published_configuration():
    assert is_port(PUBLISHED) and not is_port({"_class_name": "UNet2DConditionModel"})
    config = port_config(PUBLISHED)
    assert config.heads == (5, 10, 20, 20) and config.camera_dim == 16
    assert config.use_linear_projection
    assert port_config(PUBLISHED | {"ip_dim": 0, "ip_weight": 1.0}) == config


def test_the_port_is_the_same_model(mvdream_file, mvdream_folder):
    file, folder = load_single_file(mvdream_file), load_pipeline(mvdream_folder)
    assert folder.networks == file.networks
    assert folder.scheduler == file.scheduler
    jax.tree.map(np.testing.assert_array_equal, folder.params, file.params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera_embed.0.bias": None}, "tensor camera_embed.0.bias [128] is missing"),
        (
            {"input_blocks.1.1.proj_in.weight": (32, 32, 1, 1)},
            "tensor input_blocks.1.1.proj_in.weight has shape [32, 32, 1, 1], the configuration "
            "asks for [32, 32]",
        ),
        (
            {"image_embed.latents": (1, 4, 32)},
            "tensor image_embed.latents [1, 4, 32] has no place in the model",
        ),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(
    mvdream_folder, tmp_path, changed, changes, message
):
    folder = Path(shutil.copytree(mvdream_folder, tmp_path / "port"))
    save_file(changed(load_file(folder / WEIGHTS), changes), folder / WEIGHTS)
    with pytest.raises(ValueError, match="tensor") as error:
        load_pipeline(folder)
    assert str(error.value) == f"{folder / WEIGHTS}: {message}"


def test_imagedream_is_refused(mvdream_folder, tmp_path):
    folder = Path(shutil.copytree(mvdream_folder, tmp_path / "port"))
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"ip_dim": 16}))
    with pytest.raises(ValueError) as error:
        load_pipeline(folder)
    assert str(error.value) == f"{folder}: unet config: ip_dim = 16 is not supported, only 0"
