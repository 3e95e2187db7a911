"""The CLIP vision encoder and its preprocessing against transformers and PyTorch."""

import jax
import numpy as np
import pytest

from dsd_jax.models.clip_vision import ClipVision, param_shapes, preprocess
from dsd_jax.models.config import ClipVisionConfig
from dsd_jax.models.weights import read_part

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIG = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 20,
    "patch_size": 5,
    "projection_dim": 10,
}


def nchw(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_embeddings_are_those_of_transformers(activation, tmp_path):
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(**CONFIG, hidden_act=activation, initializer_factor=5.0)
    theirs = transformers.CLIPVisionModelWithProjection(config).eval()
    theirs.save_pretrained(tmp_path / "image_encoder")
    ours = ClipVision(ClipVisionConfig.from_dict(config.to_dict()))
    params = read_part(tmp_path, "image_encoder", param_shapes(ours), np.dtype("float32"))
    image = np.random.default_rng(0).normal(size=(4, 20, 20, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(pixel_values=nchw(image)).image_embeds.numpy()
    found = jax.jit(ours.apply)({"params": params}, image)
    assert found.shape == (4, 10) and expected.std(0).min() > 1e-3
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("side", [40, 300])
def test_images_are_resized_as_by_pytorch(side):
    image = np.random.default_rng(1).uniform(size=(1, side, side + 20, 3)).astype(np.float32)
    mean, std = transformers.image_utils.OPENAI_CLIP_MEAN, transformers.image_utils.OPENAI_CLIP_STD
    resized = torch.nn.functional.interpolate(
        nchw(image), (224, 224), mode="bicubic", antialias=False, align_corners=True
    )
    expected = (np.moveaxis(resized.numpy(), 1, -1)[0] - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(preprocess(image[0]), expected, atol=2e-4)
