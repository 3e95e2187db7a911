"""What text3d.py refuses, in one line, before anything is compiled or written."""

import json
import shutil
from pathlib import Path

import pytest
from programs import arguments, load_script

from dsd_jax.cli import validate
from dsd_jax.cli.program import BAD_INPUT


@pytest.fixture(scope="module")
def text3d(quick_compilation):
    return load_script("text3d")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--prompt is empty"),
        (["--prompt", "  "], "--prompt is empty"),
        (["--seeds", "4:4"], "empty range"),
        (["--method", "dss"], "did you mean"),
        (["--turn-deg", "30"], "--up and --turn-deg need --retexture"),
        (["--up", "z"], "--up and --turn-deg need --retexture"),
        (["--retexture", ""], "--retexture is empty"),
        (["--retexture", "https://a.org/b.glb"], "--retexture is a URL; download it first"),
        (["--method", "dsd-star"], "did you mean dsd?"),
        (["--preset", "quik"], "did you mean quick?"),
        (["--prior", "toybx"], "did you mean"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--no-refine", "--rounds", "2"], "--no-refine leaves out what --refine.* asks for"),
        (["--fov-deg", "nan"], "--camera.fov-deg"),
        (["--method.eta", "3.0"], "error: --method.eta must lie in 0..1, not 3.0"),
        (["--table-points", "2"], "error: --ode.table-points must be at least 3, not 2"),
        (["--out", "FILE/runs"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(text3d, tmp_path, capsys, monkeypatch, flags, said):
    """None of these loads a prior."""
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("")
    prompt = [] if said.startswith("--prompt") else ["--prompt", "a house"]
    assert text3d.main(["--out", "out", *prompt, *flags]) == BAD_INPUT
    assert _one_line(capsys, said).startswith("error: ")
    assert not Path("out").exists()


def test_a_prior_that_takes_a_picture_is_refused(text3d, zero123_folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--prompt", "a house", "--prior", str(zero123_folder), "--out", str(out)]
    assert text3d.main(command) == BAD_INPUT
    _one_line(capsys, "takes an image")
    assert not out.exists()


def test_a_prior_with_a_bad_tensor(text3d, tiny_prior_folder, tmp_path, capsys):
    from safetensors.numpy import load_file, save_file

    folder, name = tmp_path / "prior", "conv_in.weight"
    shutil.copytree(tiny_prior_folder, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors[name] = tensors[name][..., :1].copy()
    save_file(tensors, path)
    out = tmp_path / "out"
    command = ["--prompt", "a house", "--prior", str(folder), "--out", str(out)]
    assert text3d.main(command) == BAD_INPUT
    _one_line(capsys, name)
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--late-resolution", "100000"], "error: one seed needs about "),
     (["--turntable-resolution", "100000"], "make --turntable-resolution or --final-samples"),
     (["--prompts", "a house", "a red house", "--turntable-frames", "1000000000"],
      "or name fewer --seeds")],
)  # fmt: skip
def test_sizes_that_no_memory_holds(text3d, tiny_prior_folder, tmp_path, capsys, flags, said):
    command = arguments(tiny_prior_folder, "--out", tmp_path / "out", *flags)
    assert text3d.main(command) == BAD_INPUT
    _one_line(capsys, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("backend", "version", "slow"),
    [("gpu", "0.10.2", True), ("gpu", "0.11.0", True), ("gpu", "0.11.1", False),
     ("gpu", "0.10.1", False), ("cpu", "0.10.2", False)],
)  # fmt: skip
def test_slow_jaxlib_is_named_on_gpus_only(backend, version, slow):
    assert (validate.slow_scatter(backend, version) is not None) == slow


def test_the_folder_of_an_older_version_is_refused(text3d, tiny_prior_folder, tmp_path, capsys):
    config = {"prompt": "a red house", "seeds": [0], "settings": {}, "version": "0.1.0"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert text3d.main([*arguments(tiny_prior_folder), "--out", str(tmp_path)]) == BAD_INPUT
    _one_line(capsys, f"error: {tmp_path} was written by dsd_jax 0.1.0, and this is ")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_what_the_prior_has_never_seen_is_a_warning(text3d, tiny_prior_folder, tmp_path, capsys):
    command = [*arguments(tiny_prior_folder), "--prompt", "a red cat", "--out", str(tmp_path)]
    text3d.prepare(*text3d.parse(command))
    _one_line(capsys, "warning: the prior has never seen the words: cat")


def _one_line(capsys, said) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    return line
