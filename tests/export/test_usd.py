"""USDZ packages, read back by USD itself."""

import importlib.util
import zipfile

import numpy as np
import pytest
from PIL import Image
from programs import load_script
from soft_balls import make_run

from dsd_jax.cli.program import BAD_INPUT
from dsd_jax.export.model_files import Model, save_as, save_model, srgb_to_linear

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
COLOURS = np.array([[188, 0, 255], [0, 255, 0], [9, 9, 9], [255, 255, 255]], np.uint8)
PLAIN = Model(
    CORNERS, FACES, (CORNERS - 0.25) / np.linalg.norm(CORNERS - 0.25, axis=1)[:, None], COLOURS
)
UV = np.array([[0, 0], [1, 0], [0, 0.25], [1, 1]])
TEXTURE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
TEXTURED = PLAIN._replace(uv=UV, texture=TEXTURE)


@pytest.fixture
def without_usd(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "pxr" else find(name, *rest),
    )


@pytest.mark.parametrize("model", [PLAIN, TEXTURED], ids=["plain", "textured"])
def test_usd_accepts_it(model, tmp_path):
    """Every validator that comes with usd-core; places, faces, and where colours come from."""
    pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom, UsdShade, UsdValidation

    (path,) = save_model(tmp_path, model, ("usdz",))
    known = UsdValidation.ValidationRegistry()
    names = [about.name for about in known.GetAllValidatorMetadata()]
    checks = UsdValidation.ValidationContext(known.GetOrLoadValidatorsByName(names))
    stage = Usd.Stage.Open(str(path))
    assert len(names) > 10 and checks.Validate(stage) == []
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/object/mesh"))
    np.testing.assert_allclose(mesh.GetPointsAttr().Get(), CORNERS, atol=1e-6)
    np.testing.assert_allclose(mesh.GetNormalsAttr().Get(), PLAIN.normals, atol=1e-6)
    faces = np.reshape(mesh.GetFaceVertexIndicesAttr().Get(), (-1, 3))
    np.testing.assert_array_equal(faces, FACES)
    values = UsdGeom.PrimvarsAPI(mesh)
    surface = UsdShade.Shader(stage.GetPrimAtPath("/object/surface/preview"))
    (colour,) = surface.GetInput("diffuseColor").GetConnectedSources()[0]
    if model.texture is None:
        linear = values.GetPrimvar("displayColor").Get()
        np.testing.assert_allclose(linear, srgb_to_linear(COLOURS) / 255, atol=1e-6)
        assert colour.source.GetPath() == "/object/surface/reader"
    else:
        flipped = UV * [1, -1] + [0, 1]  # v points up
        np.testing.assert_allclose(values.GetPrimvar("st").Get(), flipped, atol=1e-6)
        assert colour.source.GetPath() == "/object/surface/texture"
        package = zipfile.ZipFile(path)
        (name,) = [name for name in package.namelist() if name.endswith(".png")]
        np.testing.assert_array_equal(np.asarray(Image.open(package.open(name))), TEXTURE)


def test_without_its_library_nothing_is_written(without_usd, tmp_path):
    for write in (
        lambda: save_model(tmp_path, TEXTURED, ("glb", "usdz")),
        lambda: save_as(tmp_path / "mesh.usdz", TEXTURED),
    ):
        with pytest.raises(ValueError, match=r"^\.usdz files need the library usd-core: pip inst"):
            write()
    assert not any(tmp_path.iterdir())


def test_the_program_refuses_before_it_begins(without_usd, tmp_path, capsys):
    """Asked for, or there from before: all files of a folder are of one mesh."""
    program, run = load_script("export_mesh"), make_run(tmp_path / "run")
    assert program.main([str(run), "--format", "usdz"]) == BAD_INPUT
    (run / "seed_0000" / "mesh.usdz").touch()
    assert program.main([str(run)]) == BAD_INPUT
    assert capsys.readouterr().err.count("usdz files need the library usd-core") == 2
    assert not [*run.glob("*/mesh.glb")]
