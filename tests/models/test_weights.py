"""weights.py: what is read, what is written, and how a bad folder is refused."""

import functools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dsd_jax.models import weights
from dsd_jax.models.tensor_files import shards
from dsd_jax.models.weights import Pipeline, load_pipeline, save_pipeline

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(autouse=True, scope="module")
def shapes_once():
    """Tracing the networks takes most of the time of loading; once for each is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "param_shapes", functools.cache(weights.param_shapes))
        yield


@pytest.fixture
def folder(tiny_sd, tmp_path):
    """A copy of tiny_sd to spoil."""
    return Path(shutil.copytree(tiny_sd, tmp_path / "tiny_sd"))


@pytest.fixture(scope="module")
def pipeline(tiny_sd):
    return load_pipeline(tiny_sd)


def edit(file, change):
    """Rewrite a safetensors file after `change(tensors)`."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_round_trip_in_float32_is_exact(tiny_sd, pipeline, tmp_path):
    save_pipeline(tmp_path / "copy", pipeline, tiny_sd / "tokenizer", np.float32)
    again = load_pipeline(tmp_path / "copy")
    assert again.networks == pipeline.networks
    assert again.scheduler == pipeline.scheduler
    assert_equal(again.params, pipeline.params)
    for file in (UNET, VAE, TEXT):
        ours, theirs = load_file(tmp_path / "copy" / file), load_file(tiny_sd / file)
        assert_equal(ours, theirs)
    assert (tmp_path / "copy/tokenizer/merges.txt").is_file()


def test_round_trip_with_camera_in_float16(tiny_sd, networks, params, tmp_path):
    save_pipeline(tmp_path, Pipeline(networks, params), tiny_sd / "tokenizer", np.float16)
    again = load_pipeline(tmp_path)
    assert again.networks == networks
    assert_equal(again.params, jax.tree.map(lambda p: np.float32(np.float16(p)), params))
    tensors = load_file(tmp_path / UNET)
    assert tensors["camera_embedding.linear_1.weight"].shape == (128, 16)
    assert all(tensor.dtype == np.float16 for tensor in tensors.values())
    assert json.loads((tmp_path / "unet/config.json").read_text())["camera_dim"] == 16


def test_saving_over_the_own_folder_keeps_the_tokenizer(tiny_sd, folder, pipeline):
    save_pipeline(folder, pipeline, folder / "tokenizer")
    assert (folder / "tokenizer/vocab.json").read_bytes() == (
        tiny_sd / "tokenizer/vocab.json"
    ).read_bytes()


def test_parameters_take_the_type_asked_for(tiny_sd, pipeline):
    half = load_pipeline(tiny_sd, jnp.bfloat16)
    assert half.networks.unet.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype(jnp.bfloat16)}
    mixed = load_pipeline(tiny_sd, jnp.bfloat16, param_dtype=jnp.float32)
    assert mixed.networks == half.networks
    assert_equal(mixed.params, pipeline.params)


def test_bfloat16_files_are_read(folder, pipeline):
    def halve(tensors):
        for key in tensors:
            tensors[key] = tensors[key].astype(jnp.bfloat16)

    edit(folder / UNET, halve)
    again = load_pipeline(folder).params["unet"]
    rounded = jax.tree.map(lambda p: np.float32(p.astype(jnp.bfloat16)), pipeline.params["unet"])
    assert_equal(again, rounded)


def test_old_attention_names_and_position_ids(folder, pipeline):
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(tensors):
        for key in [key for key in tensors if ".attentions." in key]:
            for new, old in names.items():
                if f".{new}." in key:
                    tensors[key.replace(f".{new}.", f".{old}.")] = tensors.pop(key)

    edit(folder / VAE, age)
    positions = np.arange(77)[None]
    edit(folder / TEXT, lambda t: t.update({"text_model.embeddings.position_ids": positions}))
    assert any(".query." in key for key in load_file(folder / VAE))
    assert_equal(load_pipeline(folder).params, pipeline.params)


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_variants_are_found(folder, variant):
    (folder / UNET).rename(folder / f"unet/diffusion_pytorch_model.{variant}.safetensors")
    load_pipeline(folder)


def shard(folder, index="diffusion_pytorch_model.safetensors.index.json", infix=""):
    """Cut the unet's file into two, every other tensor in each; returns the weight_map."""
    tensors, places = load_file(folder / UNET), {}
    (folder / UNET).unlink()
    for i in (1, 2):
        name = f"diffusion_pytorch_model{infix}-0000{i}-of-00002.safetensors"
        half = dict(sorted(tensors.items())[i - 1 :: 2])
        save_file(half, folder / "unet" / name)
        places |= dict.fromkeys(half, name)
    write_index(folder / "unet" / index, places)
    return places


def write_index(file, places):
    file.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


INDEX = "unet/diffusion_pytorch_model.safetensors.index.json"
SHARD = "unet/diffusion_pytorch_model-0000{}-of-00002.safetensors"


@pytest.mark.parametrize(
    ("index", "infix"),
    [
        ("diffusion_pytorch_model.safetensors.index.json", ""),
        ("diffusion_pytorch_model.fp16.safetensors.index.json", ".fp16"),
        ("diffusion_pytorch_model.safetensors.index.fp16.json", ".fp16"),
        ("diffusion_pytorch_model.safetensors.index.bf16.json", ".bf16"),
    ],
)
def test_shards_are_read_as_one_file(folder, pipeline, index, infix):
    shard(folder, index, infix)
    assert_equal(load_pipeline(folder).params, pipeline.params)


def test_full_precision_goes_before_fp16(folder, pipeline):
    shutil.copyfile(folder / UNET, folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    shard(folder)
    edit(folder / "unet/diffusion_pytorch_model.fp16.safetensors", lambda t: t.clear())
    assert_equal(load_pipeline(folder).params, pipeline.params)


def test_a_missing_shard_is_named(folder):
    shard(folder)
    (folder / SHARD.format(2)).unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_pipeline(folder)
    names = f"which {Path(INDEX).name} names"
    assert str(error.value) == f"{folder / SHARD.format(2)} is missing, {names}"


def test_broken_shards_are_named(folder):
    shard(folder)
    file = folder / SHARD.format(2)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"00002-of-00002\.safetensors cannot be read as safe"):
        load_pipeline(folder)


def test_the_first_tensor_of_shards_that_does_not_fit_is_named(folder):
    places = shard(folder)
    name = "time_embedding.linear_1.weight"

    def refused(message):
        with pytest.raises(ValueError) as error:
            load_pipeline(folder)
        assert str(error.value) == f"{folder / INDEX}: {message}"

    edit(folder / "unet" / places[name], lambda t: t.update({name: np.zeros((32, 128))}))
    refused(f"tensor {name} has shape [32, 128], the configuration asks for [128, 32]")
    edit(folder / "unet" / places[name], lambda t: t.pop(name))
    refused(f"tensor {name} is not in {places[name]}")
    write_index(folder / INDEX, {k: v for k, v in places.items() if k != name})
    refused(f"tensor {name} [128, 32] is missing")
    edit(folder / "unet" / places[name], lambda t: t.update({"a.b": np.zeros(3)}))
    refused(f"tensor a.b of {places[name]} is not in the index")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", r"has to hold named entries, got \[\]"),
        ("[" * 100_000, "is no configuration: it is nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON: Exceeds the limit"),
        ("", "is empty"),
        ("version https://git-lfs", "is a Git LFS pointer"),
        ("<!DOCTYPE html>", "is a web page"),
        ('{"weight_map": {"a": []}}', r"\[\] is not the name of"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": {"a": "../a.safetensors"}}', r"'\.\./a\.safetensors' is not the name of"),
        ('{"weight_map": {"a": "a.bin"}}', r"'a\.bin' is not the name of a safetensors file"),
        ('{"weight_map": {"a": 1}}', "1 is not the name of"),
    ],
)
def test_a_bad_index_is_refused(tmp_path, content, message):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ValueError, match=rf"index\.json:? {message}"):
        shards(tmp_path / "index.json")


def test_json_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "index.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=r"index\.json is not JSON: 'utf-8' codec"):
        shards(tmp_path / "index.json")


def stored_as(file, name, kind, size):
    """Rewrite a safetensors file with zeros of another type, of `size` bits each, as tensor `name`.

    NumPy knows few of the types, so that header and bytes are written by hand.
    """
    tensors = {key: (tensor.shape, tensor.tobytes()) for key, tensor in load_file(file).items()}
    shape = tensors[name][0]
    tensors[name] = shape, bytes(int(np.prod(shape)) * size // 8)
    header, end = {}, 0
    for key, (shape, raw) in tensors.items():
        place = {"shape": shape, "data_offsets": [end, end + len(raw)]}
        header[key] = {"dtype": kind if key == name else "F32", **place}
        end += len(raw)
    text = json.dumps(header).encode()
    raw = b"".join(raw for _, raw in tensors.values())
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("F8_E4M3", 8),
        ("F8_E5M2", 8),
        ("F8_E8M0", 8),
        ("F4", 4),
        ("BOOL", 8),
        ("C64", 64),
        ("I8", 8),
    ],
)
def test_types_that_are_no_weights_are_named(folder, kind, size):
    stored_as(folder / VAE, "decoder.conv_in.weight", kind, size)
    with pytest.raises(ValueError) as error:
        load_pipeline(folder)
    assert str(error.value) == (
        f"{folder / VAE}: tensor decoder.conv_in.weight is stored as {kind}, which is not read, "
        "only F64, F32, F16, BF16: take the model's weights in one of these"
    )


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float16, jnp.bfloat16])
def test_weights_that_are_not_finite_are_named(folder, number, kind):
    def spoil(tensors):
        tensors["decoder.conv_in.weight"] = tensors["decoder.conv_in.weight"].astype(kind)
        tensors["decoder.conv_in.weight"][0, 0, 0, 0] = number

    edit(folder / VAE, spoil)
    message = r"vae.*tensor decoder\.conv_in\.weight holds NaN or infinite numbers and is damaged"
    for dtype in (jnp.float32, jnp.bfloat16):
        with pytest.raises(ValueError, match=message):
            load_pipeline(folder, dtype)


def test_weights_too_large_for_their_type_are_named(folder):
    edit(folder / VAE, lambda t: t["decoder.conv_in.weight"].fill(1e6))
    load_pipeline(folder)
    with pytest.raises(ValueError, match=r"conv_in\.weight .* does not fit into float16: compute"):
        load_pipeline(folder, jnp.float16)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["lora_unet_mid_block_to_q.lora_down.weight"], "a LoRA"),
        (["unet.mid_block.attn1.to_q.lora_A.weight"], "a LoRA"),
        (["controlnet_cond_embedding.conv_in.weight"], "a ControlNet"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "a whole checkpoint in the original"),
        (["encoder.mid_block.resnets.0.norm1.weight"], "a VAE"),
        (["text_model.final_layer_norm.bias"], "a CLIP encoder"),
        (["module.conv_in.weight"], "names begin with module"),
        (["a"], "another model's"),
    ],
)
def test_other_layouts_are_named(folder, names, what):
    save_file({name: np.zeros(1, np.float32) for name in names}, folder / UNET)
    with pytest.raises(ValueError, match=rf"unet/diff.* is .*{what}.*none of the tensors needed"):
        load_pipeline(folder)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs and so on", "a Git LFS pointer, not the file itself"),
        (b"PK\x03\x04", "a zip archive or PyTorch's pickle"),
        (b"\x80\x02}q\x00", "a pickle"),
        (b"<html>", "a web page"),
        (b"", "empty"),
    ],
)
def test_what_is_no_safetensors_is_named(folder, content, what):
    (folder / UNET).write_bytes(content)
    with pytest.raises(ValueError, match=rf"unet/diffusion_pytorch_model\.safetensors is {what}"):
        load_pipeline(folder)


def test_shapes_are_compared_before_anything_is_allocated(folder):
    """The largest that a configuration may ask for: 85 GB in one tensor."""
    config = json.loads((folder / "vae/config.json").read_text())
    config |= {"block_out_channels": [8192] * len(config["block_out_channels"])}
    (folder / "vae/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="the configuration asks for"):
        load_pipeline(folder)


@pytest.mark.parametrize("shared", [[], {"vae": 1}, {"vae": None}])
def test_a_bad_place_of_a_shared_part_is_named(folder, shared):
    (folder / "model_index.json").write_text(json.dumps({"shared": shared}))
    with pytest.raises(ValueError, match=r"model_index\.json: shared has to name the folder of"):
        load_pipeline(folder)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"_class_name": "StableDiffusion3Pipeline"}, "names 'StableDiffusion3Pipeline', which is"),
        ({"_class_name": "FluxPipeline"}, "names 'FluxPipeline', which is not of the Stable Diff"),
        ({"_class_name": 7}, "names 7, which is not"),
        ({"unet": ["diffusers", "FluxTransformer2DModel"]}, "names 'FluxTransformer2DModel'"),
    ],
)
def test_a_pipeline_of_another_family_is_named(folder, entries, said):
    file = folder / "model_index.json"
    index = json.loads(file.read_text())
    file.write_text(json.dumps(index | entries))
    with pytest.raises(ValueError, match=said) as error:
        load_pipeline(folder)
    assert str(file) in str(error.value)
    file.write_text(json.dumps(index | {"_class_name": ["pipeline_mvdream", "MVDreamPipeline"]}))
    load_pipeline(folder)


def test_a_variant_that_is_not_read_is_named(folder):
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.non_ema.safetensors")
    with pytest.raises(FileNotFoundError, match=r"unet holds diffusion_pytorch_model\.non_ema\."):
        load_pipeline(folder)


def test_pickles_are_not_read(folder):
    (folder / VAE).rename(folder / "vae/diffusion_pytorch_model.bin")
    with pytest.raises(FileNotFoundError) as error:
        load_pipeline(folder)
    assert str(error.value) == (
        f"{folder}/vae holds diffusion_pytorch_model.bin but no safetensors; pickles can run code "
        "and are not read, convert: python experiments/tools/convert_weights.py "
        f"{folder} NEW_FOLDER"
    )


def remove_two(tensors):
    del tensors["conv_out.bias"], tensors["conv_in.weight"]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (UNET, remove_two, r"unet.*tensor conv_in\.weight \[32, 4, 3, 3\] is missing"),
        (VAE, lambda t: t.update({"a.b": np.zeros(3)}), r"vae.*tensor a\.b \[3\] has no place"),
        (
            TEXT,
            lambda t: t.update({"text_model.final_layer_norm.bias": np.zeros(31)}),
            r"text_encoder.*text_model\.final_layer_norm\.bias has shape \[31\].* \[32\]",
        ),
        # A square matrix would hide a transposition: a rectangular one must not.
        (
            UNET,
            lambda t: t.update({"time_embedding.linear_1.weight": np.zeros((32, 128))}),
            r"time_embedding\.linear_1\.weight has shape \[32, 128\].* \[128, 32\]",
        ),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(folder, file, change, message):
    edit(folder / file, change)
    with pytest.raises(ValueError, match=message) as error:
        load_pipeline(folder)
    assert "\n" not in str(error.value)


def test_camera_weights_without_camera_dim_are_refused(tiny_sd, networks, params, tmp_path):
    save_pipeline(tmp_path, Pipeline(networks, params), tiny_sd / "tokenizer")
    config = json.loads((tmp_path / "unet/config.json").read_text())
    del config["camera_dim"]
    (tmp_path / "unet/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"camera_embedding\.linear_1\.bias .* has no place"):
        load_pipeline(tmp_path)


def test_missing_files_are_named(folder):
    (folder / VAE).unlink()
    with pytest.raises(FileNotFoundError, match=r"vae/diffusion.*\.safetensors is missing"):
        load_pipeline(folder)
    (folder / "text_encoder/config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"text_encoder/config\.json is missing"):
        load_pipeline(folder)
    (folder / "model_index.json").unlink()
    with pytest.raises(FileNotFoundError, match="not a diffusers folder"):
        load_pipeline(folder)


def test_broken_files_are_named(folder):
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"unet.*cannot be read as safetensors"):
        load_pipeline(folder)
    (folder / "unet/config.json").write_text("{")
    with pytest.raises(ValueError, match=r"unet/config\.json is not JSON"):
        load_pipeline(folder)


def test_values_that_do_not_fit_the_type_are_refused_before_writing(
    tiny_sd, networks, params, tmp_path
):
    large = jax.tree.map(np.copy, params)
    large["unet"]["conv_in"]["bias"][3] = 1e6
    pipeline = Pipeline(networks, large)
    with pytest.raises(ValueError, match=r"conv_in\.bias is not finite as float16"):
        save_pipeline(tmp_path / "new", pipeline, tiny_sd / "tokenizer")
    assert not (tmp_path / "new").exists()
    save_pipeline(tmp_path / "new", pipeline, tiny_sd / "tokenizer", np.float32)
    with pytest.raises(ValueError, match="float16 or float32"):
        save_pipeline(tmp_path / "new", pipeline, tiny_sd / "tokenizer", np.float64)
