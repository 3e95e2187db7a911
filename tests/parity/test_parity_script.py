"""experiments/tools/parity.py against PyTorch in miniature, one network of each kind."""

from functools import partial

import pytest
from programs import SMALL_UNET, load_script

from dsd_jax.models import keys

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytestmark = pytest.mark.usefixtures("quick_compilation")

UNET = {**SMALL_UNET, "in_channels": 8}
VAE = {
    "block_out_channels": [32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": 16,
}
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_act": "gelu",
}
TEXT = {**CLIP, "vocab_size": 99, "max_position_embeddings": 77}
VISION = {**CLIP, "image_size": 16, "patch_size": 4, "projection_dim": 24}


@pytest.fixture(scope="module")
def parity():
    return load_script("parity")


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("unet", (UNET,)),
        ("vae", (VAE, "encode")),
        ("vae", (VAE, "decode")),
        ("clip_text", (TEXT,)),
        ("clip_image", (VISION,)),
    ],
)
def test_networks_agree(parity, kind, arguments):
    row = parity.compare(kind, partial(getattr(parity, kind), *arguments))
    assert row["passed"] and 0 < row["relative error"] < 1e-5
    assert row["parameters"] == row["parameters (PyTorch)"] > 1000


def test_no_weight_stays_constant_so_that_none_is_hidden(parity, tmp_path):
    from safetensors.numpy import load_file

    parity.run_torch(parity.unet(UNET), tmp_path / "weights.safetensors")
    tensors = load_file(tmp_path / "weights.safetensors")
    assert all(tensor.std() > 0 for tensor in tensors.values())


def test_a_wrong_weight_is_found(parity, monkeypatch):
    """Two projections exchanged: shapes and number of parameters stay as they were."""
    exchanged = {"q_proj": "v_proj", "v_proj": "q_proj"}

    def rename(key):
        return ".".join(exchanged.get(part, part) for part in key.split("."))

    monkeypatch.setattr(keys, "modern", rename)
    row = parity.compare("text", lambda: parity.clip_text(TEXT))
    assert not row["passed"] and row["relative error"] > 1e-3
    assert row["parameters"] == row["parameters (PyTorch)"]
