"""models/hub.py on the ports of MVDream and Zero-1-to-3."""

import json
import shutil

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import errors
from safetensors.numpy import load_file, save_file

from dsd_jax.cli import single_view
from dsd_jax.models.hub import fetch
from dsd_jax.models.zero123 import FOV_DEG
from dsd_jax.priors import EMBEDDED, fov_deg_of, load_prior

ID = "owner/tiny"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_a_repository_of_mvdream_s_port(hub, mvdream_folder):
    shutil.rmtree(hub.repository)
    shutil.copytree(mvdream_folder, hub.repository)
    (hub.repository / "mv_unet.py").touch()
    assert load_prior(ID).denoises_together
    assert "mv_unet.py" not in hub.fetched[1]
    config = json.loads((hub.repository / "unet/config.json").read_text())
    (hub.repository / "unet/config.json").write_text(json.dumps(config | {"ip_dim": 4}))
    with pytest.raises(ValueError) as caught:
        fetch(ID)
    assert str(caught.value) == "owner/tiny: unet config: ip_dim = 4 is not supported, only 0"


@pytest.mark.parametrize("projection", ["cc_projection", "clip_camera_projection"])
def test_a_repository_of_zero123_s_ports(hub, zero123_folder, projection):
    """It has no text encoder and no tokenizer, and a layer with a folder of its own."""
    shutil.rmtree(hub.repository)
    shutil.copytree(zero123_folder, hub.repository)
    file = hub.repository / projection / WEIGHTS
    (hub.repository / "cc_projection").rename(file.parent)
    stored = {name.partition(".")[2]: tensor for name, tensor in load_file(file).items()}
    prefix = "projection" if projection == "cc_projection" else "proj"
    half = {f"{prefix}.{name}": tensor.astype(np.float16) for name, tensor in stored.items()}
    file.unlink()
    file = file.with_name("diffusion_pytorch_model.fp16.safetensors")
    save_file(half, file)
    (hub.repository / "feature_extractor").mkdir()
    (hub.repository / "feature_extractor/preprocessor_config.json").touch()
    configs = [f"{part}/config.json" for part in ("image_encoder", "unet", "vae")]
    small = sorted([*configs, "model_index.json", "scheduler/scheduler_config.json"])
    image = "image_encoder/model.safetensors"
    large = [image, f"unet/{WEIGHTS}", f"vae/{WEIGHTS}", f"{projection}/{file.name}"]
    prior = load_prior(ID)
    assert hub.fetched == [small, sorted(small + large)]
    assert prior.pose_kind == "distance"
    np.testing.assert_array_equal(
        prior.params["cc_projection"]["bias"], stored["bias"].astype(np.float16)
    )
    (hub.repository / image).rename(hub.repository / "image_encoder/pytorch_model.bin")
    with pytest.raises(ValueError, match="has no safetensors for its image_encoder, and pickles"):
        fetch(ID)


def test_the_pose_is_asked_for_before_the_long_download(hub, zero123_folder):
    shutil.rmtree(hub.repository)
    shutil.copytree(zero123_folder, hub.repository)
    (hub.repository / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^owner/tiny: nothing in its files .* say --pose"):
        load_prior(ID)
    assert len(hub.fetched) == 1
    assert load_prior(ID, pose="elevation").pose_kind == "elevation"


def test_the_field_of_view_is_the_repository_s_own(hub, zero123_folder):
    """A copy of toybox-1to3 stays one by any name; its index alone is fetched to know it."""
    shutil.rmtree(hub.repository)
    shutil.copytree(zero123_folder, hub.repository)
    assert fov_deg_of(ID) == FOV_DEG == load_prior(ID).fov_deg
    index = json.loads((EMBEDDED["toybox-1to3"] / "model_index.json").read_text())
    index.pop("shared", None)
    (hub.repository / "model_index.json").write_text(json.dumps(index))
    hub.fetched.clear()
    assert fov_deg_of(ID) == 40 and hub.fetched == [["model_index.json"]]
    assert single_view.parse(["--prior", ID])[1].camera.fov_deg == 40
    assert load_prior(ID).fov_deg == 40
    hub.download_error = errors.OfflineModeIsEnabled("offline")
    with pytest.raises(ValueError, match="owner/tiny could not be downloaded: offline"):
        fov_deg_of(ID)


def no_connection(*_, **__):
    raise errors.OfflineModeIsEnabled("Cannot reach the hub: offline mode is enabled.")


def test_the_cache_serves_zero123_alone(cached, zero123_folder, monkeypatch):
    shutil.rmtree(cached)
    shutil.copytree(zero123_folder, cached)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_connection)
    assert fetch(ID).samefile(cached)
    (cached / "cc_projection" / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match="or not wholly, in the cache"):
        fetch(ID)
