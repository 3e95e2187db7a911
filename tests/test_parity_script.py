"""experiments/parity.py without PyTorch; against PyTorch see parity/test_parity_script.py."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SMALL = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
}


@pytest.fixture
def parity(monkeypatch):
    path = Path(__file__).parents[1] / "experiments" / "parity.py"
    spec = importlib.util.spec_from_file_location("parity", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "parity", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(module.UNETS, "small", SMALL)
    return module


def test_bfloat16_is_compared_with_float32(parity, quick_compilation, tmp_path, capsys):
    out = tmp_path / "table.json"
    assert parity.main(["--bf16", "--only", "small", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [row["network"].split(",")[1] for row in rows] == [" t = 1", " t = 999"]
    for row in rows:
        assert row["type"] == "bfloat16" and row["finite"]
        assert 1e-4 < row["relative error"] < parity.BF16_BOUND
        assert 0.5 < row["eps"] < 2
    assert "| small, t = 999, cpu | " in capsys.readouterr().out


def test_a_large_error_fails(parity, quick_compilation, monkeypatch):
    monkeypatch.setattr(parity, "BF16_BOUND", 1e-4)
    assert parity.main(["--bf16", "--only", "small"]) == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--only", "unet-sd14"], "did you mean unet-sd15?"),
        (["--bf16", "--only", "vae-encoder"], "--only 'vae-encoder' is not one of small, unet-"),
        (["--bf16", "--out", "table.txt"], "--out table.txt has to end in .md or .json"),
    ],
)
def test_bad_input_is_one_line(parity, capsys, flags, said):
    assert parity.main(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


def test_missing_pytorch_is_said_in_one_line(parity, capsys, monkeypatch):
    monkeypatch.setattr(parity, "find_spec", lambda name: None if name == "torch" else name)
    assert parity.main(["--only", "unet-sd15"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: torch is not installed: pip install '.[parity]' or pass --bf16"
