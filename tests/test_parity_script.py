"""experiments/tools/parity.py without PyTorch; against PyTorch see parity/test_parity_script.py."""

import json

import pytest
from programs import SMALL_UNET, load_script


@pytest.fixture
def parity(monkeypatch):
    module = load_script("parity")
    monkeypatch.setitem(module.UNETS, "small", SMALL_UNET)
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
