"""CLIP from a folder: features, similarity to a prompt, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dsd_jax.metrics import clip, features
from dsd_jax.models import keys
from dsd_jax.models.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory, quick_compilation):
    """Images 12 x 12, a common space of 6; knows the words "a red house"."""
    folder = tmp_path_factory.mktemp("clip")
    vocabulary = train_tokenizer(["a red house"], folder, max_length=8)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 2}  # fmt: skip
    config = {
        "model_type": "clip",
        "projection_dim": 6,
        "text_config": {**shape, "vocab_size": vocabulary, "max_position_embeddings": 8},
        "vision_config": {**shape, "image_size": 12, "patch_size": 4},
    }
    (folder / "config.json").write_text(json.dumps(config))
    expected = keys.flatten(clip.param_shapes(*clip._networks(folder, np.float32)))
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.3, keys.torch_shape(path, leaf.shape)).astype(np.float32)
        for name, (path, leaf) in expected.items()
    }
    places = {"text_model.embeddings.position_ids": np.arange(8)[None]}
    save_file(tensors | {"logit_scale": np.array(2.7, np.float32)} | places,
              folder / "model.safetensors")  # fmt: skip
    return folder


def test_features_have_length_one_and_tell_things_apart(folder):
    encoders = clip.load_clip(folder)
    images = np.random.default_rng(1).integers(0, 255, (5, 2, 16, 16, 3), np.uint8)
    found = clip.image_features(encoders, images, batch=4)
    assert found.shape == (5, 2, 6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(features.clip_image(encoders)(images), found, atol=1e-5)
    words = np.asarray(clip.text_features(encoders, ["a red house", "house", "a red house"]))
    np.testing.assert_array_equal(words[0], words[2])
    assert words[0] @ words[1] < 0.999
    similarity = clip.prompt_similarity(encoders, "a red house", images)
    np.testing.assert_allclose(similarity, (found @ words[0]).mean(1), atol=1e-5)


def test_images_are_resized_without_ringing(folder):
    """A plain picture of any size has the features of one of CLIP's own size."""
    encoders = clip.load_clip(folder)
    plain = [clip.image_features(encoders, np.full((1, side, side, 3), 0.3)) for side in (12, 40)]
    np.testing.assert_allclose(plain[0], plain[1], atol=1e-4)


def test_the_text_ends_at_its_first_end(folder):
    """What pads a prompt has no say; a cut prompt still ends."""
    encoders = clip.load_clip(folder)
    long = "a red house " * 9
    cut = clip.text_features(encoders, [long, long + "red"])
    np.testing.assert_array_equal(cut[0], cut[1])


def test_folders_that_are_none(folder, tmp_path):
    def copy(name):
        return shutil.copytree(folder, tmp_path / name)

    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        clip.load_clip(tmp_path)
    other = copy("other")
    (other / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ValueError, match="holds no CLIP model"):
        clip.load_clip(other)
    bare = copy("bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="only safetensors are read"):
        clip.load_clip(bare)
    mute = copy("mute")
    (mute / "vocab.json").unlink()
    (mute / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="prompts need a tokenizer"):
        clip.load_clip(mute)
    short = copy("short")
    tensors = load_file(short / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, short / "model.safetensors")
    with pytest.raises(ValueError, match=r"tensor text_projection.weight \[6, 16\] is missing"):
        clip.load_clip(short)
