"""experiments/tools/pack_objects.py: a folder of meshes becomes an objects.npz that loads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dsd_jax.data.objects import load_objects

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "experiments" / "tools"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    (folder / "nature").mkdir()
    car = trimesh.creation.box(extents=[1, 2, 3])
    car.visual.vertex_colors = [255, 0, 0, 255]
    car.export(folder / "RedCar_01.glb")
    trimesh.creation.icosphere(subdivisions=1).export(folder / "nature" / "boulder.glb")
    return folder


def pack(*arguments):
    command = [sys.executable, TOOLS / "pack_objects.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_two_files_with_a_table(folder, tmp_path):
    table = tmp_path / "names.csv"
    table.write_text("name,caption,category,symmetric\nnature/boulder,Round Rock,rock,1\n", "utf-8")
    out = tmp_path / "objects.npz"
    result = pack("--folder", folder, "--out", out, "--table", table)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out}: 2 objects, 92 triangles\n"
    objects = load_objects(out)
    assert objects.caption == ["red car", "round rock"]
    assert objects.category == ["car", "rock"]
    assert objects.symmetric.tolist() == objects.colourless.tolist() == [False, True]
    car = objects.triangles(0) / objects.scale[0]
    half = np.array([1, 2, 3]) / np.sqrt(14)
    np.testing.assert_allclose(np.abs(car).max((0, 1)), half, atol=1e-4)
    np.testing.assert_allclose(objects.colours(0), [[1, 0, 0]] * 12)
    with np.load(out) as file:
        assert file["group"].tolist() == [folder.name, "nature"]
        assert file["file_name"].tolist() == ["RedCar_01.glb", "boulder.glb"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,caption\nghost,x\n", "no file is named 'ghost'"),
        ("file,caption\nboulder,x\n", "needs a header"),
        ("name,symmetric\nboulder,maybe\n", "symmetric is 'maybe'"),
        ("name\nboulder\nboulder\n", "names 'boulder' twice"),
        (None, "does not exist"),
        ("name,caption\nboulder,Stück\n", "names.csv is not UTF-8 but, it seems, Latin-1"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, tmp_path, capsys, table, message):
    sys.path.insert(0, str(TOOLS))
    try:
        from pack_objects import Settings, main
    finally:
        sys.path.pop(0)
    path = tmp_path / "names.csv"
    if table:
        path.write_text(table, "latin-1")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        main(Settings(folder=folder, out=tmp_path / "x.npz", table=path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.npz").exists()


def test_notes_of_macos_are_left_out_with_a_word(folder, tmp_path):
    for name in ("._boulder.glb", "boulder.glb"):
        (tmp_path / name).write_bytes((folder / "nature" / "boulder.glb").read_bytes())
    (tmp_path / "._boulder.glb").write_bytes(b"\0\5\x16\7")
    result = pack("--folder", tmp_path, "--out", tmp_path / "objects.npz")
    assert result.returncode == 0, result.stderr
    assert result.stderr == (
        f"left out: {tmp_path / '._boulder.glb'}: macOS's note on a file, no mesh\n"
    )
    assert len(load_objects(tmp_path / "objects.npz")) == 1


def test_a_folder_is_no_file_to_write(folder, tmp_path):
    """Said before anything is read: the folder of meshes is not even there."""
    result = pack("--folder", tmp_path / "none", "--out", tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: --out {tmp_path} is a folder; give a file")


def test_a_folder_is_no_table(folder, tmp_path):
    result = pack("--folder", folder, "--table", tmp_path, "--out", tmp_path / "objects.npz")
    assert result.returncode == 1
    assert result.stderr == f"error: --table {tmp_path} is a folder; give a CSV file\n"


def test_bad_files_stop_or_are_left_out(folder, tmp_path):
    (tmp_path / "bad.ply").write_text("nothing")
    out = tmp_path / "objects.npz"
    result = pack("--folder", tmp_path, "--out", out)
    assert result.returncode == 1 and result.stderr.startswith("error: bad.ply is not readable")
    assert result.stderr.count("\n") == 1
    result = pack("--folder", tmp_path, "--out", out, "--skip-bad")
    assert result.stderr.splitlines()[-1] == "error: there are no objects to write"
    result = pack("--folder", tmp_path / "none")
    assert result.stderr == f"error: {tmp_path / 'none'} is not a folder\n"
