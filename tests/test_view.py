"""view.py, and what text3d.py --viewer needs."""

import json
import shutil
import socket
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from programs import load_script

from dsd_jax.cli.program import BAD_INPUT
from dsd_jax.export import manifest, splat_files
from dsd_jax.export.viewer import HOST
from dsd_jax.rendering.splats import Splats


@pytest.fixture
def viser(monkeypatch):
    """As if it were installed."""
    monkeypatch.setitem(sys.modules, "viser", SimpleNamespace())


@pytest.fixture
def run(tmp_path):
    """Seeds 2 and 5 have meshes, seed 7 has none."""
    for seed in (2, 5, 7):
        folder = tmp_path / "a-house-1a2b3c4d" / f"seed_{seed:04d}"
        folder.mkdir(parents=True)
        if seed != 7:
            (folder / "mesh.glb").write_bytes(bytes([seed]))
            about = {"scale": 0.5, "origin": [0, seed, 0]}
            (folder / "mesh.json").write_text(json.dumps(about))
    return folder.parent


def test_every_run_is_a_row_of_its_meshes(run):
    first, second = load_script("view").exhibits_of(run, 1)
    assert (first.name, second.name) == (f"{run.name} seed 2", f"{run.name} seed 5")
    assert (first.glb, second.glb) == (b"\x02", b"\x05")
    assert (second.scale, second.origin) == (0.5, [0, 5, 0])
    assert first.place == (-1.0, -2.0, 0.0) and second.place == (1.0, -2.0, 0.0)
    assert first.splats is None
    with pytest.raises(FileNotFoundError, match=r"field.json does not exist"):
        first.live()


def test_splats_lie_where_they_were_in_the_field(run):
    view, folder = load_script("view"), run / "seed_0005"
    splats = Splats(
        *(np.ones((1, n), np.float32) for n in (3, 3, 4)), np.zeros(1), np.full((1, 3), 0.5)
    )
    splat_files.save(folder / "splats.ply", splats)
    about = {"scale": 0.5, "origin": [0, 5, 0]}
    (folder / "splats.json").write_text(json.dumps(about))
    first, second = view.exhibits_of(run, 0)
    assert first.splats is None
    np.testing.assert_allclose(second.splats.centres, [[2, 7, 2]])
    np.testing.assert_allclose(np.exp(second.splats.log_scales), 2 * np.e, rtol=1e-6)
    (folder / "splats.ply").write_text("no splats")
    with pytest.raises(ValueError, match=r"splats.ply is damaged: it holds no splats"):
        view.exhibits_of(run, 0)


def test_what_cannot_be_shown_is_said_in_one_line(run, viser, tmp_path, capsys, monkeypatch):
    view = load_script("view")

    def said(*arguments) -> str:
        assert view.main([*map(str, arguments)]) == BAD_INPUT
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert said().startswith("error: no run is named: give its folder")
    assert said(tmp_path) == (
        f"error: {tmp_path} holds no seed_0000 or another seed; give the folder of a finished run"
    )
    for seed in (2, 5):
        (run / f"seed_{seed:04d}" / "mesh.glb").rename(tmp_path / f"{seed}.glb")
    assert said(run) == (
        f"error: {run} has no meshes; python experiments/export_mesh.py {run} makes them"
    )
    for seed in (2, 5):
        (tmp_path / f"{seed}.glb").rename(run / f"seed_{seed:04d}" / "mesh.glb")
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert said(run, "--port", port) == (
            f"error: --port {port}: Address already in use; give another"
        )
    monkeypatch.setitem(sys.modules, "viser", None)
    assert said(run) == 'error: view.py needs viser: pip install "dsd_jax[viewer]"'


@pytest.mark.parametrize("name", ["mesh.glb", "mesh.json", "splats.ply"])
def test_files_that_are_not_as_they_were_written_are_named(run, viser, capsys, name):
    (run / "seed_0005" / "splats.ply").write_bytes(b"ply")
    manifest.write_manifest(run)
    (run / "seed_0005" / name).write_bytes(b"x")
    assert load_script("view").main([str(run)]) == BAD_INPUT
    assert capsys.readouterr().err == (
        f"error: {run}: missing or damaged: seed_0005/{name}; "
        "the command that made it makes it again\n"
    )


@pytest.mark.parametrize("other", ["", "elsewhere"])
def test_runs_of_one_name_are_refused(run, viser, capsys, tmp_path, other):
    second = tmp_path / other / run.name
    if other:
        shutil.copytree(run, second)
    assert load_script("view").main([str(run), str(second)]) == BAD_INPUT
    assert "seed 2 comes twice; give each run once" in capsys.readouterr().err


def test_text3d_refuses_before_it_loads_anything(viser, monkeypatch, tmp_path, capsys):
    text3d = load_script("text3d")
    command = ["--prompt", "a house", "--viewer", "--out", str(tmp_path / "out")]
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert text3d.main([*command, "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"error: --port {port}: Address already in use; give another\n"
    )
    monkeypatch.setitem(sys.modules, "viser", None)
    assert text3d.main(command) == 2
    assert capsys.readouterr().err == 'error: --viewer needs viser: pip install "dsd_jax[viewer]"\n'
    assert not (tmp_path / "out").exists()
