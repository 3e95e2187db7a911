"""experiments/tools/convert_weights.py: pickles become safetensors, or are refused in one line."""

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from dsd_jax.models.weights import load_pipeline

TOOLS = Path(__file__).parents[1] / "experiments" / "tools"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    import convert_weights

    return convert_weights


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="pickles need PyTorch (extra `parity`)")


def convert(script, source, out):
    script.main(script.Settings(source, out))


# ---- without PyTorch ------------------------------------------------------------------------


def test_missing_torch_is_said_in_one_line(script, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "unet").mkdir()
    file = tmp_path / "unet" / "a.bin"
    file.touch()
    for source, out in [(file, tmp_path / "a.safetensors"), (tmp_path, tmp_path / "new")]:
        with pytest.raises(ImportError) as caught:
            convert(script, source, out)
        assert str(caught.value) == (
            "pickles are read by PyTorch, which is not installed: pip install '.[parity]'"
        )
        assert not out.exists()


def test_the_command_line_prints_one_line(tmp_path):
    command = [sys.executable, TOOLS / "convert_weights.py", "none", "b.safetensors"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "error: none does not exist\n")


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("a.ckpt", "b.ckpt", r"the file to write has to end in \.safetensors, not 'b\.ckpt'"),
        ("a.safetensors", "b.safetensors", r"a\.safetensors is safetensors already"),
        ("folder", "new", r"folder holds no \.bin file"),
    ],
)
def test_mistakes(script, tmp_path, source, out, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.ckpt").touch()
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(ValueError, match=message):
        convert(script, tmp_path / source, tmp_path / out)
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize(
    ("name", "converted"),
    [
        ("pytorch_model.bin", "model.safetensors"),
        ("pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"),
        ("pytorch_model.bin.index.json", "model.safetensors.index.json"),
        ("pytorch_model.bin.index.fp16.json", "model.safetensors.index.fp16.json"),
        ("diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model.fp16.safetensors"),
        ("model_index.json", "model_index.json"),
        ("pytorch_model.safetensors", "pytorch_model.safetensors"),
    ],
)
def test_names(script, name, converted):
    assert script.converted_name(name) == converted


# ---- with PyTorch ---------------------------------------------------------------------------


def test_a_checkpoint(script, torch, tmp_path, capsys):
    base = torch.arange(6.0).reshape(2, 3)
    state = {
        "base": base,
        "shared": base,
        "transposed": base.T,
        "part": base[1],
        "half": torch.tensor([1.5, 2.0], dtype=torch.float16),
        "brain": torch.tensor([3.0], dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "ids": torch.arange(3),
        "version": 7,
    }
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    out = tmp_path / "sub" / "a.safetensors"
    convert(script, tmp_path / "a.ckpt", out)
    assert capsys.readouterr().out == f"{out}: 8 tensors, 0.00 GiB\n"
    assert [f.name for f in out.parent.iterdir()] == ["a.safetensors"]
    found = load_file(out)
    assert {name: str(tensor.dtype) for name, tensor in found.items()} == {
        **dict.fromkeys(["base", "shared", "transposed", "part", "parameter"], "float32"),
        "half": "float16",
        "brain": "bfloat16",
        "ids": "int64",
    }
    expected = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(found["base"], expected)
    np.testing.assert_array_equal(found["shared"], expected)
    np.testing.assert_array_equal(found["transposed"], expected.T)
    np.testing.assert_array_equal(found["part"], expected[1])
    np.testing.assert_array_equal(found["brain"], [3.0])
    with safe_open(out, framework="np") as file:
        assert file.metadata() == {"format": "pt"}


def test_callbacks_named_by_lightning_are_passed_over(script, torch, tmp_path, monkeypatch):
    """Checkpoints of Zero-1-to-3 carry one; the class is neither imported nor needed."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    modules = [".".join(name.split(".")[: i + 1]) for i in range(3)]
    source, out = tmp_path / "a.ckpt", tmp_path / "a.safetensors"
    with monkeypatch.context() as patch:
        for module in modules:
            patch.setitem(sys.modules, module, types.ModuleType(module))
        callback = type("ModelCheckpoint", (), {"__module__": name})
        sys.modules[name].ModelCheckpoint = callback
        state = {"w": torch.ones(2)}
        torch.save({"state_dict": state, "callbacks": {callback: {"best": 1.0}}}, source)
    assert not any(module in sys.modules for module in modules)
    convert(script, source, out)
    with safe_open(out, framework="np") as file:
        assert list(file.keys()) == ["w"]


def test_bad_pickles_leave_nothing(script, torch, tmp_path):
    source, out = tmp_path / "a.ckpt", tmp_path / "a.safetensors"

    def refused(message):
        with pytest.raises(ValueError) as caught:
            convert(script, source, out)
        assert str(caught.value) == f"{source} {message}"
        assert [f.name for f in tmp_path.iterdir()] == ["a.ckpt"]

    torch.save({"a": torch.ones(1), "callback": shutil.rmtree}, source)
    refused("cannot be read as plain tensors: it holds a shutil.rmtree, which could run code")
    for content in ({"epoch": 3}, [torch.ones(1)], torch.ones(1)):
        torch.save(content, source)
        refused("holds no named tensors")
    source.write_bytes(source.read_bytes()[:100])
    refused("cannot be read as plain tensors: is it complete?")
    source.write_bytes(b"")
    refused("cannot be read as plain tensors: is it complete?")


def pickle_weights(torch, folder):
    """Replace the safetensors of a tiny prior by .bin files, the unet's by two shards."""

    def take(part):
        (file,) = (folder / part).glob("*.safetensors")
        tensors = {name: torch.from_numpy(array) for name, array in load_file(file).items()}
        file.unlink()
        return tensors

    torch.save(take("vae"), folder / "vae/diffusion_pytorch_model.bin")
    torch.save(take("text_encoder"), folder / "text_encoder/pytorch_model.bin")
    tensors, places = take("unet"), {}
    for i in (1, 2):
        shard = f"diffusion_pytorch_model-0000{i}-of-00002.bin"
        half = dict(sorted(tensors.items())[i - 1 :: 2])
        torch.save(half, folder / "unet" / shard)
        places |= dict.fromkeys(half, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "unet/diffusion_pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_a_folder_of_pickles_loads_after_conversion(script, torch, tiny_prior_folder, tmp_path):
    source = Path(shutil.copytree(tiny_prior_folder, tmp_path / "old"))
    shutil.rmtree(source / "words")
    pickle_weights(torch, source)
    (source / "flax_model.msgpack").touch()
    (source / ".cache").mkdir()
    (source / ".cache" / "note.json").touch()
    out = tmp_path / "new"
    convert(script, source, out)
    assert sorted(f.relative_to(out).as_posix() for f in out.rglob("*") if f.is_file()) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "words.json",
    ]
    expected = load_pipeline(tiny_prior_folder).params
    jax.tree.map(np.testing.assert_array_equal, load_pipeline(out).params, expected)
