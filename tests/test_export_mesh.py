"""export_mesh.py on a run of three seeds, of which one is empty and one is broken."""

import json
import os
import shutil
import threading
from functools import partial

import jax
import numpy as np
import pytest
import trimesh
from programs import SMALL_MESH, load_script
from soft_balls import make_run

from dsd_jax.cli.program import BAD_INPUT
from dsd_jax.export import charts, manifest, mesh, mesh_programs
from dsd_jax.export.field_grid import field_of
from dsd_jax.export.model_files import save_model
from dsd_jax.export.run_folder import seed_folder
from dsd_jax.export.scenes import load_scene
from dsd_jax.files import write_json
from dsd_jax.rendering.cameras import ring


@pytest.fixture(scope="module")
def export_mesh(quick_compilation):
    module = load_script("export_mesh")
    small = partial(mesh.MeshSettings, view_size=48, samples=16)
    small.faces = mesh.MeshSettings.faces
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MeshSettings", small)
        yield module


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


FEW = ["--faces", "400", "--texture-size", "64"]


def test_all_seeds_but_the_empty_one(export_mesh, run, capsys):
    command = [str(run), *FEW, "--format", "glb", "ply"]
    assert export_mesh.main(command) == export_mesh.INCOMPLETE
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "error: seed 1 has no mesh: the field is empty: nothing in it hides half of the background",
        "1 of 3 seeds have no mesh",
    ]
    assert said.out.startswith("seed 0: threshold ") and "seed 3: threshold " in said.out
    for seed in (0, 3):
        folder = seed_folder(run, seed)
        names = {path.name for path in folder.iterdir()}
        assert names == {"field.json", "field.safetensors", "mesh.glb", "mesh.json", "mesh.ply"}
        mesh = trimesh.load(folder / "mesh.glb", force="mesh")
        assert 300 < len(mesh.faces) <= 400
        np.testing.assert_allclose(mesh.extents, 1, atol=0.05)
        report = json.loads((folder / "mesh.json").read_text())
        assert min(report["silhouette_iou"]) > 0.9 and len(report["psnr_db"]) == 8
    assert {p.name for p in seed_folder(run, 1).iterdir()} == {"field.json", "field.safetensors"}


def test_the_threshold_and_the_seeds_may_be_chosen(export_mesh, run, capsys):
    command = [str(run), *FEW, "--seeds", "3", "--threshold", "5", "--vertex-colours"]
    assert export_mesh.main(command) == 0
    assert capsys.readouterr().out.startswith("seed 3: threshold 5, ")
    assert not (seed_folder(run, 0) / "mesh.glb").exists()
    (mesh,) = trimesh.load_scene(seed_folder(run, 3) / "mesh.glb").geometry.values()
    assert mesh.visual.uv is None and len(mesh.visual.vertex_attributes["color"])
    capsys.readouterr()
    assert export_mesh.main([str(run), "--seeds", "2"]) == BAD_INPUT
    said = capsys.readouterr()
    assert said.err == f"error: --seeds: {run} holds no seed 2; it holds 0, 1, 3\n" and not said.out


@pytest.fixture
def finished(run):
    """The same with scores and a list of files, as a run without meshes leaves them."""
    config = json.loads((run / "config.json").read_text())
    known = {"prompt": "a ball", "seeds": [0, 1, 3], "preset": "quick"}
    write_json(run / "config.json", config | known)
    write_json(run / "metrics.json", {"seeds": {seed: {"steps": 1} for seed in "013"}})
    manifest.write_manifest(run)
    return run


def test_the_page_and_the_scores_of_a_finished_run_are_of_the_new_meshes(export_mesh, finished):
    run = finished
    export_mesh.main([str(run), *FEW, "--seeds", "3", "--vertex-colours"])
    assert (run / "index.html").is_file() and (seed_folder(run, 3) / "mesh.js").is_file()
    assert not (seed_folder(run, 0) / "mesh.js").exists()
    metrics = json.loads((run / "metrics.json").read_text())
    assert [metrics["seeds"][seed]["steps"] for seed in "013"] == [1] * 3
    assert metrics["seeds"]["0"]["geometry"] is metrics["seeds"]["0"]["mesh_iou"] is None
    before = metrics["seeds"]["3"]["geometry"]
    assert metrics["geometry"]["parts"] == before["parts"] == 1 and metrics["mesh_iou"] > 0.9
    assert manifest.faults(run) == []
    listed = json.loads((run / "manifest.json").read_text())["files"]
    assert {"clay.png", "seed_0003/clay/az045.png", "seed_0003/mesh.js"} <= set(listed)
    clay = (run / "clay.png").read_bytes()

    stl = ["--format", "stl", "--faces", "150", "--vertex-colours", "--seeds", "0,3"]
    assert export_mesh.main([str(run), *stl]) == 0
    for name in ("mesh.glb", "mesh.stl"):
        assert len(trimesh.load_mesh(seed_folder(run, 3) / name).faces) <= 150
    assert not (seed_folder(run, 0) / "mesh.glb").exists()
    after = json.loads((run / "metrics.json").read_text())["seeds"]["3"]["geometry"]
    assert after["bump_deg"] != before["bump_deg"] and (run / "clay.png").read_bytes() != clay
    assert manifest.faults(run) == []


def test_damaged_scores_are_named(export_mesh, finished, capsys):
    (finished / "metrics.json").write_text("{")
    command = [str(finished), *FEW, "--seeds", "3", "--vertex-colours"]
    assert export_mesh.main(command) == export_mesh.INCOMPLETE
    assert "error: there is no page of the meshes: " in capsys.readouterr().err
    assert (seed_folder(finished, 3) / "mesh.glb").is_file()


def test_another_seed_whose_mesh_is_damaged_is_named(export_mesh, finished, capsys):
    command = [str(finished), *FEW, "--vertex-colours"]
    assert export_mesh.main([*command, "--seeds", "0,3"]) == 0
    mesh = seed_folder(finished, 0) / "mesh.glb"
    mesh.write_bytes(mesh.read_bytes()[:60])
    capsys.readouterr()
    assert export_mesh.main([*command, "--seeds", "3"]) == export_mesh.INCOMPLETE
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{mesh} is damaged: it holds no mesh; the command that made it" in line


def test_files_of_the_run_that_are_gone_are_named(export_mesh, finished, capsys):
    (finished / "seed_0001" / "field.json").unlink()
    assert export_mesh.main([str(finished), *FEW, "--seeds", "3", "--vertex-colours"]) == 0
    assert "missing or damaged: seed_0001/field.json; the command" in capsys.readouterr().err


def test_a_broken_seed_does_not_stop_the_others(export_mesh, run, capsys):
    (seed_folder(run, 0) / "field.json").write_text("{}")
    command = [str(run), *FEW, "--seeds", "0,3", "--vertex-colours"]
    assert export_mesh.main(command) == export_mesh.INCOMPLETE
    assert "error: seed 0 has no mesh: " in capsys.readouterr().err
    assert (seed_folder(run, 3) / "mesh.glb").exists()


@pytest.fixture
def slow_second(monkeypatch):
    """Charts on two cores, of which the second end after the third began; the sizes that began."""
    began, third = [], threading.Event()

    def unwrap(vertices, faces, normals, size):
        began.append(size)
        if len(began) == 3:
            third.set()
        assert len(began) == 1 or third.wait(60)
        return charts.unwrap(vertices, faces, normals, size)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(mesh, "unwrap", unwrap)
    return began


CAMERAS = ring([0, 180], 15, 2.7, 40)


def test_several_seeds_are_made_at_once_and_said_in_order(quick_compilation, run, slow_second):
    shutil.copytree(seed_folder(run, 0), seed_folder(run, 2))
    lines = []
    failed = mesh.export_seeds(
        run, [3, 1, 2, 0], CAMERAS, SMALL_MESH, say=lines.append, complain=lines.append
    )
    assert failed == [1] and slow_second == [64] * 3
    said = ["seed 3", "seed 1 has no mesh", "seed 2", "seed 0"]
    assert [line.partition(":")[0] for line in lines] == said
    alone = mesh.make_mesh(field_of(load_scene(seed_folder(run, 0))), CAMERAS, SMALL_MESH)
    before = (seed_folder(run, 0) / "mesh.glb").read_bytes()
    save_model(seed_folder(run, 0), alone.model)
    assert (seed_folder(run, 0) / "mesh.glb").read_bytes() == before


def test_what_is_compiled_beforehand_is_not_compiled_again(quick_compilation, run, compilations):
    """From shapes alone, where the guesses of how much there will be are right."""
    field = field_of(load_scene(seed_folder(run, 0)))
    field = field._replace(apply=lambda *args, apply=field.apply: apply(*args))  # never seen yet
    shapes = jax.eval_shape(lambda: field.params)
    for compile_one in mesh_programs.compilations(
        field._replace(params=shapes), CAMERAS, SMALL_MESH
    ):
        compile_one()
    names = {f"jit({name})" for name in ("_grid", "_gather", "_peaks", "_views")}
    assert names - {"jit(_peaks)"} <= set(compilations)  # that one may serve another field
    before = len(compilations)
    mesh.make_mesh(field, CAMERAS, SMALL_MESH)
    assert not names & set(compilations[before:])


def test_a_seed_whose_charts_fail_does_not_stop_the_others(quick_compilation, run, monkeypatch):
    def unwrap(vertices, faces, normals, size):
        raise ValueError("there are no charts")

    monkeypatch.setattr(mesh, "unwrap", unwrap)
    lines = []
    assert mesh.export_seeds(run, [0, 3], CAMERAS, SMALL_MESH, complain=lines.append) == [
        0,
        3,
    ]
    assert lines == [f"seed {seed} has no mesh: there are no charts" for seed in (0, 3)]
    assert not (seed_folder(run, 0) / "mesh.json").exists()


def test_an_interrupt_ends_it(quick_compilation, run, monkeypatch):
    """What one worker has begun is ended; the third seed is not begun."""
    shutil.copytree(seed_folder(run, 0), seed_folder(run, 2))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    def say(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mesh.export_seeds(run, [3, 0, 2], CAMERAS, SMALL_MESH, say=say)
    assert not (seed_folder(run, 2) / "mesh.glb").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--faces", "3"], "--faces must be at least 100, not 3"),
        (["--threshold", "high"], "--threshold must be auto or a positive number, not 'high'"),
        (["--threshold", "-1"], "--threshold must be auto or a positive number, not '-1'"),
        (["--smoothing", "-1"], "--smoothing must be from 0 to 1000, not -1"),
        (["--texture-size", "1"], "--texture-size must be from 16 to 8192, not 1"),
        (["--seeds", "0:0"], "'0:0' is an empty range; write start:end"),
        (["--format", "glb", "glb"], "--format: glb comes twice"),
    ],
)
def test_bad_flags_are_refused_in_one_line(export_mesh, run, capsys, flags, message):
    assert export_mesh.main([str(run), *flags]) == BAD_INPUT
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1


def test_folders_that_are_no_run_are_refused(export_mesh, run, tmp_path, capsys):
    assert export_mesh.main([str(tmp_path)]) == BAD_INPUT
    assert (
        "config.json does not exist; give the folder of a finished run" in capsys.readouterr().err
    )
    write_json(tmp_path / "config.json", {"recipe": {}})
    assert export_mesh.main([str(tmp_path)]) == BAD_INPUT
    assert "config.json is damaged: it does not say camera" in capsys.readouterr().err
    write_json(tmp_path / "config.json", json.loads((run / "config.json").read_text()))
    assert export_mesh.main([str(tmp_path)]) == BAD_INPUT
    assert "holds no seed_0000" in capsys.readouterr().err
