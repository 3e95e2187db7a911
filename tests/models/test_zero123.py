"""models/zero123.py: one file and the ports of it, names by hand, and what is refused."""

import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dsd_jax.models import zero123
from dsd_jax.models.ldm_names import encoder_key
from dsd_jax.models.ldm_pipeline import load_single_file as load_text_model
from dsd_jax.models.zero123 import build, load_folder, load_single_file

UNET = "model.diffusion_model."
VISUAL = "cond_stage_model.model.visual."
LAYER = f"{VISUAL}transformer.resblocks.1."
WEIGHTS = "diffusion_pytorch_model.safetensors"

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module", autouse=True)
def traced_once():
    """Tracing the networks takes most of the time of loading."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zero123, "param_shapes", functools.cache(zero123.param_shapes))
        yield


@pytest.fixture(scope="module")
def tensors(zero123_file):
    return load_file(zero123_file)


@pytest.fixture(scope="module")
def pipeline(zero123_file):
    return load_single_file(zero123_file)


@pytest.fixture
def write(zero123_file, tmp_path):
    """(tensors, changes of the JSON file) -> the checkpoint, after both are written."""

    def write(tensors, **changes):
        config = json.loads(zero123_file.with_suffix(".json").read_text()) | changes
        (tmp_path / "model.json").write_text(json.dumps(config))
        save_file(tensors, tmp_path / "model.safetensors")
        return tmp_path / "model.safetensors"

    return write


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# ---- what is read ---------------------------------------------------------------------------


def test_clip_s_tensors_are_cut_as_ours(tensors, pipeline):
    """By hand for each kind of tensor in OpenAI's layout."""
    params = pipeline.params["image_encoder"]
    assert_equal(params["visual_projection"]["kernel"], tensors[f"{VISUAL}proj"])
    model = params["vision_model"]
    embeddings = model["embeddings"]
    assert tensors[f"{VISUAL}conv1.weight"].shape == (16, 3, 4, 4)
    assert_equal(
        embeddings["patch_embedding"]["kernel"],
        tensors[f"{VISUAL}conv1.weight"].transpose(2, 3, 1, 0),
    )
    assert_equal(embeddings["class_embedding"], tensors[f"{VISUAL}class_embedding"])
    assert_equal(
        embeddings["position_embedding"]["embedding"], tensors[f"{VISUAL}positional_embedding"]
    )
    for ours, theirs in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")):
        assert_equal(model[ours]["scale"], tensors[f"{VISUAL}{theirs}.weight"])
    attention = model["encoder"]["layers_1"]["self_attn"]
    for i, name in enumerate(("q_proj", "k_proj", "v_proj")):
        rows = slice(16 * i, 16 * (i + 1))
        weight, bias = (tensors[f"{LAYER}attn.in_proj_{leaf}"][rows] for leaf in ("weight", "bias"))
        assert_equal(attention[name], {"kernel": weight.T, "bias": bias})
    fc1 = model["encoder"]["layers_1"]["mlp"]["fc1"]
    assert_equal(fc1["kernel"], tensors[f"{LAYER}mlp.c_fc.weight"].T)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("vision_model.encoder.layers.23.layer_norm2.bias", "transformer.resblocks.23.ln_2.bias"),
        (
            "vision_model.encoder.layers.0.self_attn.out_proj.weight",
            "transformer.resblocks.0.attn.out_proj.weight",
        ),
        ("vision_model.encoder.layers.0.mlp.fc2.bias", "transformer.resblocks.0.mlp.c_proj.bias"),
        ("vision_model.post_layernorm.bias", "ln_post.bias"),
        ("proj", "proj"),
    ],
)
def test_names_in_openai_s_clip(ours, theirs):
    assert encoder_key(ours, "image") == theirs


def test_the_port_is_the_same_model(pipeline, zero123_folder):
    again = load_folder(zero123_folder)
    assert again.networks == pipeline.networks
    assert_equal(again.params, pipeline.params)


def test_the_other_port_calls_the_projection_otherwise(pipeline, zero123_folder, tmp_path):
    folder = Path(shutil.copytree(zero123_folder, tmp_path / "port"))
    stored = load_file(folder / "cc_projection" / WEIGHTS)
    (folder / "cc_projection").rename(folder / "clip_camera_projection")
    renamed = {name.replace("projection.", "proj."): t for name, t in stored.items()}
    save_file(renamed, folder / "clip_camera_projection" / WEIGHTS)
    assert_equal(load_folder(folder).params, pipeline.params)


def test_moving_averages_go_first(tensors, pipeline, write):
    """As in the authors' sampling; names of averages have no dots but the first."""
    averages = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): tensor + 1
        for name, tensor in tensors.items()
        if name.startswith(UNET)
    }
    assert "model_ema.diffusion_modelinput_blocks10in_layers2weight" in averages
    others = {"model_ema.decay": np.zeros(()), "model_ema.num_updates": np.zeros((), np.int32)}
    params = load_single_file(write(tensors | averages | others)).params
    one_more = jax.tree.map(lambda leaf: leaf + np.float32(1), pipeline.params["unet"])
    assert_equal(params, pipeline.params | {"unet": one_more})
    name = "model_ema.diffusion_modelout2bias"
    del averages[name]
    with pytest.raises(ValueError, match=rf"model\.safetensors: tensor {name} is missing"):
        load_single_file(write(tensors | averages))


def test_what_is_left_of_clip_s_text_half_is_not_read(tensors, pipeline, write):
    names = ("positional_embedding", "text_projection", "token_embedding.weight", "ln_final.bias")
    rest = {f"cond_stage_model.model.{name}": np.zeros(4) for name in names}
    rest |= {"cond_stage_model.mean": np.zeros(3), "betas": np.zeros(1000)}
    assert_equal(load_single_file(write(tensors | rest)).params, pipeline.params)


# ---- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{VISUAL}proj": None}, f"{VISUAL}proj [16, 32] is missing"),
        (
            {f"{VISUAL}proj": (32, 16)},
            f"{VISUAL}proj has shape [32, 16], the configuration asks for [16, 32]",
        ),
        ({f"{VISUAL}ln_mid.bias": (16,)}, f"{VISUAL}ln_mid.bias [16] has no place"),
        ({f"{LAYER}attn.in_proj_bias": None}, f"{LAYER}attn.in_proj_bias [48] is missing"),
        ({"cc_projection.weight": None}, "cc_projection.weight [32, 36] is missing"),
        ({"cc_projection.scale": (32,)}, "cc_projection.scale [32] has no place"),
        (
            {f"{UNET}input_blocks.0.0.weight": (32, 4, 3, 3)},
            f"{UNET}input_blocks.0.0.weight has shape [32, 4, 3, 3], the configuration asks for "
            "[32, 8, 3, 3]",
        ),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(tensors, write, changed, changes, message):
    file = write(changed(tensors, changes))
    with pytest.raises(ValueError, match="tensor") as error:
        load_single_file(file)
    assert str(error.value).startswith(f"{file}: tensor {message}")
    assert "\n" not in str(error.value)


def test_a_projection_that_is_missing_or_misshapen_is_named(zero123_folder, tmp_path):
    folder = Path(shutil.copytree(zero123_folder, tmp_path / "port"))
    file = folder / "cc_projection" / WEIGHTS
    stored = load_file(file)
    save_file(stored | {"projection.weight": np.zeros((32, 32))}, file)
    with pytest.raises(ValueError, match=r"projection\.weight has shape \[32, 32\], .* \[32, 36\]"):
        load_folder(folder)
    shutil.rmtree(folder / "cc_projection")
    with pytest.raises(FileNotFoundError, match=rf"cc_projection/{WEIGHTS} is missing"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("image_encoder", {"embed_dim": 16}, "a context of width 32, the image encoder gives 16"),
        ("image_encoder", {"layers": 0}, "image_encoder config: layers needs a positive integer"),
        ("image_encoder", {"kind": "clip"}, "image_encoder config: entry kind is not supported"),
        ("image_encoder", {"patch_size": 5}, "image_size 12 must be a multiple of patch_size 5"),
        ("unet", {"in_channels": 4}, "takes 4 channels and predicts 4; with a vae of 4 .* 8 and 4"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(write, part, changes, message):
    file = write({"betas": np.zeros(1)})
    config = json.loads(file.with_suffix(".json").read_text())
    file = write({"betas": np.zeros(1)}, **{part: config[part] | changes})
    with pytest.raises(ValueError, match=message) as error:
        load_single_file(file)
    assert str(error.value).startswith(f"{file.with_suffix('.json')}: ")


def test_poses_and_kinds_of_models_are_checked(tensors, write, zero123_file, mvdream_file):
    with pytest.raises(
        ValueError, match=r"model\.json: pose needs one of distance, elevation, got"
    ):
        load_single_file(write(tensors, pose="polar"))
    with pytest.raises(ValueError, match="takes an image, not a prompt"):
        load_text_model(zero123_file)
    with pytest.raises(ValueError, match="takes a prompt, not an image"):
        load_single_file(mvdream_file)


def test_networks_in_parts_that_do_not_go_together_are_refused(pipeline):
    unet, vae, encoder = (network.config.to_dict() for network in pipeline.networks)
    with pytest.raises(ValueError, match="with a vae of 8 that has to be 16 and 8"):
        build(unet, vae | {"latent_channels": 8}, encoder)
