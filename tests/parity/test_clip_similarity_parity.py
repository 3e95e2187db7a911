"""CLIP read from transformers' own folder, against transformers."""

import json

import numpy as np
import pytest

from dsd_jax.metrics import clip
from dsd_jax.models.tokenizer import train_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from PIL import Image  # noqa: E402

SHAPE = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Theirs and ours, of one folder; config.json leaves out what is transformers' default."""
    folder = tmp_path_factory.mktemp("clip")
    vocabulary = train_tokenizer(["a red house"], folder, max_length=10)
    torch.manual_seed(0)
    end = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1}
    config = transformers.CLIPConfig(
        text_config={**SHAPE, **end, "hidden_size": 16, "vocab_size": vocabulary},
        vision_config={**SHAPE, "hidden_size": 24, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    theirs = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    assert "max_position_embeddings" not in json.loads((folder / "config.json").read_text())
    return theirs, clip.load_clip(folder), folder


def test_text_features(models):
    theirs, ours, folder = models
    prompts = ["a red house", "house", "a", "a red house a red house a red house"]
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = tensor(theirs.get_text_features(**ids))
    expected = torch.nn.functional.normalize(expected, dim=-1).numpy()
    np.testing.assert_allclose(clip.text_features(ours, prompts), expected, atol=1e-5)
    assert expected.std(0).min() > 1e-3


@pytest.mark.parametrize("side", [32, 128, 20])
def test_image_features(models, side):
    """The picture resized by transformers' own processor, which rounds it to 8 bits."""
    theirs, ours, _ = models
    y, x = np.mgrid[:side, :side] / side
    waves = np.stack([np.sin(7 * x), np.cos(9 * x * y), np.sin(8 * y - x)], -1)
    image = np.rint(127.5 + 127.5 * waves).astype(np.uint8)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    pixels = processor([Image.fromarray(image)], return_tensors="pt")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(
            tensor(theirs.get_image_features(**pixels)), dim=-1
        )
    found = clip.image_features(ours, image[None])
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-3)


def tensor(features):
    """Projected features, which transformers 5 wraps."""
    return getattr(features, "pooler_output", features)
