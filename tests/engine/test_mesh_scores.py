"""What metrics.json says of meshes, and their pictures of clay."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from dsd_jax.engine import mesh_scores
from dsd_jax.engine.mesh_scores import geometries, with_meshes
from dsd_jax.export.model_files import Model, save_model
from dsd_jax.files import write_json
from dsd_jax.metrics import efficientnet, geometry
from dsd_jax.metrics.bank import Limits, build_bank
from dsd_jax.metrics.scores import Scores
from dsd_jax.rendering.cameras import AZIMUTHS_DEG, DISTANCE, ELEVATION_DEG, FOV_DEG, ring

CAMERAS = ring(AZIMUTHS_DEG, ELEVATION_DEG, DISTANCE, FOV_DEG)


def cube(side: float) -> Model:
    mesh = trimesh.creation.box((side,) * 3)
    corners = mesh.vertices + np.array([0, side / 2, 0])
    return Model(corners, mesh.faces, mesh.vertex_normals, np.full((8, 3), 200, np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Seed 4 has a mesh from before, and none now; in the world all are cubes of side 0.8."""
    for seed, iou in ((3, [0.8, 1.0]), (4, [0.1, 0.1]), (7, [0.5, 0.7])):
        own = tmp_path / f"seed_{seed:04d}"
        own.mkdir()
        report = {"silhouette_iou": iou, "scale": 1.25, "origin": [0, -0.4, 0]}
        write_json(own / "mesh.json", report)
        save_model(own, cube(1.0))
    return tmp_path


def test_meshes_are_scored(folder):
    scores = Scores({"diversity": 0.5}, [{"accepted": own} for own in (True, False, None)])
    found = with_meshes(scores, [7, 4, 3], folder, [3, 7], CAMERAS)
    assert found.run["diversity"] == 0.5 and found.run["mesh_iou"] == pytest.approx(0.75)
    assert [own["mesh_iou"] for own in found.seeds] == [pytest.approx(0.6), None, 0.9]
    assert [own["accepted"] for own in found.seeds] == [True, False, None]
    assert found.seeds[1]["geometry"] is None
    one = found.seeds[0]["geometry"]
    assert one["watertight"] is True and one["volume"] == pytest.approx(1)
    assert one["bump_deg"] == pytest.approx(1.934, rel=1e-3) and one["parts"] == 1
    assert one["bump"] is one["creased"] is one["clay"] is None
    unknown = dict.fromkeys(("bump", "creased", "clay", "clay_over_real"))
    assert found.run["geometry"] == pytest.approx(one | {"watertight": 1.0} | unknown)


def test_pictures_of_clay(folder):
    with_meshes(Scores({}, [{}] * 3), [7, 4, 3], folder, [3, 7], CAMERAS)
    assert len(list((folder / "seed_0003" / "clay").iterdir())) == 8
    assert not (folder / "seed_0004" / "clay").exists()
    view = np.asarray(Image.open(folder / "seed_0003" / "clay" / "az000.png"))
    assert view.shape == (192, 192, 3)
    sheet = np.asarray(Image.open(folder / "clay.png"))
    assert sheet.shape == (20 + 8 * 194 - 2, 2 * 194 - 2, 3)
    np.testing.assert_array_equal(sheet[20:212, 194:386], view)


def test_no_meshes(tmp_path):
    found = with_meshes(Scores({"a": 1}, [{"b": 2}]), [5], tmp_path, [], CAMERAS)
    assert found.run == {"a": 1, "mesh_iou": None, "geometry": None}
    assert found.seeds == [{"b": 2, "mesh_iou": None, "geometry": None}]
    assert not (tmp_path / "clay.png").exists()


def test_beside_real_objects(monkeypatch):
    """The bank: houses of bump 4, of which 80 % pass, unlike cars. Seeds: a house and a car."""
    axes = np.eye(8, dtype=np.float32)
    views = np.stack([axes[0]] * 6 + [axes[1]] * 6)[:, None].repeat(8, 1)
    views = views + 0.05 * np.random.default_rng(0).normal(size=views.shape).astype(np.float32)
    bank = build_bank(
        views, ["house"] * 6 + ["car"] * 6, np.ones(12, bool), AZIMUTHS_DEG, dims=8,
        limits=Limits(0.5, 0, 0, 0, 0, 0), whole=np.zeros(16, np.float32),
        real={"house": {"bump_deg": 4.0, "creased_share": 0.5, "accepted": 0.8}, "car": {}},
    )  # fmt: skip
    monkeypatch.setattr(efficientnet, "load_efficientnet", lambda: None)
    monkeypatch.setattr(efficientnet, "features_in_batches", lambda params, images: views[[0, 6]])
    mesh = geometry.welded(cube(1).vertices, cube(1).faces)
    measured = [
        geometry.measure(mesh) | {"bump_deg": bump, "creased_share": 0.25} for bump in (8, 2)
    ]
    pictures = np.zeros((2, 8, 4, 4, 3), np.uint8)
    found = geometries(measured, pictures, "house", bank)
    assert [(own["bump"], own["creased"], own["clay"]) for own in found.seeds] == [
        (2, 0.5, True), (0.5, 0.5, False)
    ]  # fmt: skip
    assert found.run["clay"] == 0.5 and found.run["bump"] == 1.25 and found.run["parts"] == 1
    assert found.run["clay_over_real"] == pytest.approx(0.625)
    unknown = geometries(measured, pictures, "car", bank)
    assert unknown.seeds[1]["clay"] is True and unknown.seeds[1]["bump"] is None
    assert unknown.run["clay_over_real"] is None
    nothing = geometries(measured, pictures, None, bank)
    assert nothing.seeds[0]["clay"] is None and nothing.seeds[0]["bump_deg"] == 8


def test_the_package_s_bank_of_clay():
    """Houses of boards have a bump, and most of them look like houses."""
    bank = mesh_scores.load_bank(name="clay")
    house = bank.categories.index("house")
    assert 10 < bank.bump_deg[house] < 25 and 0.1 < bank.creased_share[house] < 0.4
    assert bank.accepted[house] > 0.8
