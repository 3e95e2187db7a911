"""text3d.py --retexture from the command line to the last file, with a prior made here."""

import json
import shlex
import signal
from functools import partial

import numpy as np
import pytest
import trimesh
from programs import arguments, in_miniature, load_script, signalled

from dsd_jax.cli.program import BAD_INPUT
from dsd_jax.data import given_mesh
from dsd_jax.engine.saved import load_objects_of
from dsd_jax.export.scenes import load_scene

CELLS = 48


@pytest.fixture(scope="module")
def text3d(quick_compilation):
    with in_miniature(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(given_mesh, "read_shape", partial(given_mesh.read_shape, cells=CELLS))
        yield load_script("text3d")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A box of 3 x 1 x 2 that stands at x = 10, and one triangle of it inside out."""
    box = trimesh.creation.box((3.0, 1.0, 2.0))
    box.apply_translation([10, 0.5, 0])
    box.faces[0] = box.faces[0][::-1]
    file = tmp_path_factory.mktemp("given") / "My box.glb"
    box.export(file)
    return file


@pytest.fixture(scope="module")
def command(tiny_prior_folder, given):
    more = ["--steps", 2, "--rounds", 1, "--fit-steps", 2, "--groups", 1, "--ddim-steps", 2]
    flags = ["--seeds", "0:2", *more, "--mesh", "--retexture", given]
    return arguments(tiny_prior_folder, *flags)


@pytest.fixture(scope="module")
def run(text3d, command, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert text3d.main([*command, "--out", str(out)]) == 0
    (run,) = out.iterdir()
    return run


def test_meshes_are_the_given_one_with_colours_of_their_own(run, given):
    before, textures = trimesh.load_mesh(given), []
    for seed in (0, 1):
        mesh = trimesh.load_mesh(run / f"seed_{seed:04d}" / "mesh.glb")
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
        assert len(mesh.faces) == 12 and mesh.is_watertight
        assert mesh.volume == pytest.approx(6, rel=1e-3)
        np.testing.assert_allclose(mesh.bounds, before.bounds, atol=1e-3)
        textures.append(np.asarray(mesh.visual.material.baseColorTexture))
    assert (textures[0] != textures[1]).any()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["mesh_iou"] > 0.9 and metrics["diversity"] > 0 and not metrics["lost"]


def test_the_shape_is_that_of_the_start(run, given):
    shape = given_mesh.read_shape(given, cells=CELLS)
    for seed in (0, 1):
        found = load_scene(run / f"seed_{seed:04d}").params["field"]["distance"]
        near = np.abs(shape.distance) < 0.2
        np.testing.assert_allclose(found[near], shape.distance[near], atol=1e-3)


def test_its_results_are_those_of_any_run(run, text3d, command, capsys):
    """Complete; a page with the command; objects from disk; a mesh that is lost is made again."""
    out = ["--out", str(run.parent)]
    assert text3d.main([*command, *out]) == 0 and "is complete" in capsys.readouterr().out
    (run / "seed_0000" / "mesh.glb").unlink()
    assert text3d.main([*command, *out]) == 0
    assert len(trimesh.load_mesh(run / "seed_0000" / "mesh.glb").faces) == 12
    assert f"--retexture {shlex.quote(command[-1])}"[-10:] in (run / "index.html").read_text()
    objects = load_objects_of(run)
    assert objects.prompt == "a red house" and len(objects[0].mesh().model.faces) == 12
    assert (objects.views()[0] != 204).any()


def test_cut_off_it_goes_on(text3d, command, tmp_path, run):
    with signalled(signal.SIGTERM):
        assert text3d.main([*command, "--out", str(tmp_path)]) == 128 + signal.SIGTERM
    assert text3d.main([*command, "--out", str(tmp_path)]) == 0
    for name in ("field.safetensors", "mesh.glb"):
        (found,) = tmp_path.glob(f"*/seed_0001/{name}")
        assert found.read_bytes() == (run / "seed_0001" / name).read_bytes()


def test_another_shape_is_another_run(text3d, command, given, tmp_path):
    other = tmp_path / given.name
    trimesh.creation.icosphere(2).export(other)
    out = ["--out", str(tmp_path / "out")]
    first, second = (
        text3d.prepare(*text3d.parse([*command[:-1], str(file), *out])) for file in (given, other)
    )
    assert first.folder != second.folder and first.config["mesh"] == second.config["mesh"]
    assert first.task.recipe == second.task.recipe  # and so what is compiled serves both


def test_a_bad_mesh_is_one_line(text3d, command, tmp_path, capsys):
    out = tmp_path / "out"
    assert text3d.main([*command[:-1], "nothing.glb", "--out", str(out)]) == BAD_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "error: nothing.glb does not exist" and not out.exists()
