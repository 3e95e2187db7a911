"""ldm_config.py: the published models' own configurations, and how files are recognised.

Numbers of parameters and tensors are those of the published checkpoints; nothing is allocated.
"""

import functools
import json
import logging

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dsd_jax.models import keys, ldm_config, ldm_pipeline, networks, zero123
from dsd_jax.models.ldm_config import CONFIGS, read_config, recognise

UNET = "model.diffusion_model."
VAE = 83_653_863
CLIP, OPENCLIP, VISION = 123_060_480, 340_387_840, 303_966_208
CAMERA = 16 * 1280 + 1280 + 1280 * 1280 + 1280
# {name of the file: (parameters of unet and encoder, how many tensors the checkpoint has for them)}
PUBLISHED = {
    "stable-diffusion-v1": (859_520_964, CLIP, 686 + 248 + 196),
    "stable-diffusion-v2": (865_910_724, OPENCLIP, 686 + 248 + 4 + 23 * 12),
    "stable-diffusion-v2-base": (865_910_724, OPENCLIP, 686 + 248 + 4 + 23 * 12),
    "mvdream-sd-v1.5-4view": (859_520_964 + CAMERA, CLIP, 690 + 248 + 196),
    "mvdream-sd-v2.1-base-4view": (865_910_724 + CAMERA, OPENCLIP, 690 + 248 + 4 + 23 * 12),
    "zero123": (859_532_484, VISION, 686 + 248 + 8 + 24 * 12 + 2),
    "stable-zero123": (859_532_484, VISION, 686 + 248 + 8 + 24 * 12 + 2),
}
LOOK_THE_SAME = {
    "stable-diffusion-v2": "stable-diffusion-v2-base",
    "zero123": "stable-zero123",
}


def ready(name):
    return json.loads((CONFIGS / f"{name}.json").read_text())


@functools.cache
def model(name):
    """(networks, shapes of their parameters, {tensor in a checkpoint: shape}) of a published model.

    Those that look the same differ in nothing that shapes depend on.
    """
    config = ready(name)
    kind = ldm_pipeline if "text_encoder" in config else zero123
    built = kind.build_networks(config)
    shapes = (networks.param_shapes if kind is ldm_pipeline else zero123.param_shapes)(built)
    places = ldm_pipeline.expected_tensors(config, built.unet.config, shapes)
    stored = {key: keys.torch_shape(path, leaf.shape) for key, (path, leaf) in places.items()}
    if config.get("text_encoder", {}).get("kind") == "openclip":
        stored["cond_stage_model.model.transformer.resblocks.23.ln_1.bias"] = (1024,)
    return built, shapes, stored


def test_every_configuration_is_tested():
    assert {path.stem for path in CONFIGS.iterdir()} == set(PUBLISHED)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in LOOK_THE_SAME])
def test_sizes_are_those_of_the_published_models(name):
    _, shapes, stored = model(name)
    unet, encoder, tensors = PUBLISHED[name]
    assert networks.count(shapes["unet"]) == unet
    assert networks.count(shapes["vae"]) == VAE
    (embeds,) = shapes.keys() & {"text_encoder", "image_encoder"}
    assert networks.count(shapes[embeds]) == encoder
    if embeds == "image_encoder":
        assert networks.count(shapes["cc_projection"]) == 772 * 768 + 768
    unread = any("resblocks.23.ln_1.bias" in key for key in stored) and embeds == "text_encoder"
    assert len(stored) - unread == tensors


@pytest.mark.parametrize(("name", "other"), LOOK_THE_SAME.items())
def test_what_looks_the_same_differs_in_its_use_only(name, other):
    ours, theirs = ready(name), ready(other)
    if name == "zero123":
        assert ours.pop("pose") == "distance" and theirs.pop("pose") == "elevation"
    else:
        predictions = [c["scheduler"].pop("prediction_type") for c in (ours, theirs)]
        assert predictions == ["v_prediction", "epsilon"]
        assert [c["unet"].pop("image_size") for c in (ours, theirs)] == [96, 64]
    assert ours == theirs


@pytest.mark.parametrize(
    ("model_of", "names"),
    [
        ("stable-diffusion-v1", ["stable-diffusion-v1"]),
        ("stable-diffusion-v2-base", ["stable-diffusion-v2-base", "stable-diffusion-v2"]),
        ("mvdream-sd-v1.5-4view", ["mvdream-sd-v1.5-4view"]),
        ("mvdream-sd-v2.1-base-4view", ["mvdream-sd-v2.1-base-4view"]),
        ("stable-zero123", ["stable-zero123", "zero123"]),
    ],
)
def test_published_files_are_recognised(model_of, names):
    _, _, stored = model(model_of)
    more = {"model_ema.decay": (), "betas": (1000,)}
    assert recognise(stored | more) == names


def test_inpainting_and_depth_models_are_not_taken_for_others():
    _, _, stored = model("stable-diffusion-v2-base")
    for channels in (5, 9):
        shape = (320, channels, 3, 3)
        assert recognise(stored | {f"{UNET}input_blocks.0.0.weight": shape}) == []
    assert recognise({"a": (1,)}) == []


@pytest.fixture
def lonely(mvdream_file, tmp_path, monkeypatch):
    """MVDream in miniature without the JSON file beside it, which is in the package instead."""
    monkeypatch.setattr(ldm_config, "CONFIGS", tmp_path / "configs")
    (tmp_path / "configs").mkdir()
    config = mvdream_file.with_suffix(".json").read_text()
    (tmp_path / "configs" / "tiny-mvdream.json").write_text(config)
    (tmp_path / "configs" / "stable-zero123.json").write_text(json.dumps(ready("zero123")))
    save_file(load_file(mvdream_file), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_recognised_file_needs_no_json(lonely, mvdream_file, caplog):
    with caplog.at_level(logging.WARNING):
        config = read_config(lonely)
    assert config == read_config(mvdream_file)
    assert caplog.messages == [f"{lonely}: no model.json beside it, read as tiny-mvdream"]


def test_the_json_file_beside_it_goes_first(lonely, mvdream_file, caplog):
    other = json.loads(mvdream_file.with_suffix(".json").read_text())
    other["vae"]["scale_factor"] = 1.0
    lonely.with_suffix(".json").write_text(json.dumps(other))
    assert read_config(lonely) == other and not caplog.messages


def test_a_file_that_is_not_recognised_says_how_to_choose(lonely):
    tensors = load_file(lonely)
    del tensors[f"{UNET}camera_embed.0.weight"]
    save_file(tensors, lonely)
    with pytest.raises(FileNotFoundError) as error:
        read_config(lonely)
    assert str(error.value) == (
        f"{lonely.with_suffix('.json')} is missing: it has to describe the model "
        f"model.safetensors, which is none that is known here by its tensors; write it, or copy "
        f"one of {lonely.parent / 'configs'} there (stable-zero123, tiny-mvdream)"
    )


def alike(lonely, other, part, values):
    """Copies of a checkpoint, called in every misleading way, that two configurations suit."""
    configs = lonely.parent / "configs"
    config = json.loads(other.with_suffix(".json").read_text())
    for name, value in values.items():
        entries = config[part] | value if part else value
        (configs / f"{name}.json").write_text(
            json.dumps(config | ({part: entries} if part else value))
        )
    tensors = load_file(other)
    for name in ("stable-zero123-768", "xl", "0123abcd"):
        save_file(tensors, lonely.with_name(f"{name}.safetensors"))
        yield lonely.with_name(f"{name}.safetensors")


def test_of_what_looks_the_same_the_pose_decides_and_no_name(lonely, zero123_file):
    poses = {"zero123": {"pose": "distance"}, "stable-zero123": {"pose": "elevation"}}
    for file in alike(lonely, zero123_file, None, poses):
        with pytest.raises(ValueError) as error:
            read_config(file)
        assert str(error.value) == (
            f"{file}: its tensors suit stable-zero123 and zero123 alike; say --pose distance for "
            "Zero-1-to-3 and Zero123-XL, --pose elevation for Stable Zero123 (load_prior(..., "
            f'pose="elevation") in Python), or copy the one of {lonely.parent / "configs"} that it '
            f"is to {file.with_suffix('.json')}"
        )
        for pose in ("distance", "elevation"):
            assert read_config(file, pose)["pose"] == pose
    with pytest.raises(ValueError, match=r"pose needs one of distance, elevation, got 'up'"):
        read_config(zero123_file, "up")


def test_of_what_looks_the_same_the_metadata_decide(lonely, mvdream_file):
    kinds = {"v": "v_prediction", "base": "epsilon"}
    values = {name: {"prediction_type": kind} for name, kind in kinds.items()}
    (lonely.parent / "configs/tiny-mvdream.json").unlink()
    for file in alike(lonely, mvdream_file, "scheduler", values):
        with pytest.raises(ValueError, match=r"its tensors suit base and v alike; copy the one of"):
            read_config(file)
    for told, kind in [
        ({"modelspec.prediction_type": "v"}, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
    ]:
        save_file(load_file(mvdream_file), file, metadata=told)
        assert read_config(file)["scheduler"]["prediction_type"] == kind


def test_a_file_of_another_kind_is_named(lonely):
    save_file({"lora_unet_mid_block_to_q.lora_up.weight": np.zeros(1)}, lonely)
    with pytest.raises(ValueError, match=r"model\.safetensors is a LoRA, .*; a single file has to"):
        read_config(lonely)


def test_a_pose_beside_the_file_is_not_overruled(zero123_file, tmp_path):
    file = tmp_path / "a.safetensors"
    save_file(load_file(zero123_file), file)
    config = json.loads(zero123_file.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps(config | {"pose": "elevation"}))
    assert read_config(file)["pose"] == "elevation"
    with pytest.raises(ValueError, match=r"a\.json says that pose is elevation, not distance"):
        read_config(file, "distance")


def test_files_that_cannot_be_read_are_named(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"abc")
    with pytest.raises(ValueError, match=r"a\.safetensors cannot be read as safetensors"):
        read_config(file)
    save_file({"a": np.zeros(1)}, file)
    file.with_suffix(".json").write_text('{"unet": {}, "image_encoder": {}}')
    with pytest.raises(ValueError, match="needs the entries unet, vae, image_encoder, scheduler,"):
        read_config(file)
