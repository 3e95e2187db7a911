"""experiments/evaluate_novel_views.py in miniature: two boxes, a prior made here."""

import csv
import json

import numpy as np
import pytest
import trimesh
from mesh_numbers import with_points
from PIL import Image
from programs import SMALL

from dsd_jax.cli import evaluate_novel_views as evaluate
from dsd_jax.data.objects import Item, held_out, load_objects, save_objects
from dsd_jax.metrics import chamfer, judge
from dsd_jax.rendering.cameras import orbit, ring
from dsd_jax.studies import batch, from_pictures, meshes

pytestmark = pytest.mark.usefixtures("quick_compilation")
FEW = ["--steps", "3", "--azimuth-bins", "4", "--elevation-bins", "2",
       "--density", "softplus", "--density-floor", "0"]  # fmt: skip
_SIN, _COS = np.sin(np.radians(-30)), np.cos(np.radians(-30))
TURN = np.array([[_COS, 0, -_SIN], [0, 1, 0], [_SIN, 0, _COS]])
NAMES = ["00000-bed", "00002-pineapple"]


def box(extents, rgb, caption, **flags):
    mesh = trimesh.creation.box(extents)
    colours = np.full((len(mesh.faces), 3), rgb, np.uint8)
    return Item(mesh.vertices, mesh.faces, colours, caption, caption, **flags)


BOXES = [
    box((3, 1, 2), (30, 30, 220), "bed"),
    box((1, 2, 1), (200, 30, 30), "red tower"),
    box((1, 2, 1), (30, 200, 30), "pineapple"),
    box((1, 1, 1), (250, 250, 250), "bed", colourless=True),
]


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """The first and the third are to be made: of the others one is trained on, one colourless."""
    assert held_out([item.caption for item in BOXES]).tolist() == [True, False, True, True]
    file = tmp_path_factory.mktemp("objects") / "objects.npz"
    save_objects(file, BOXES)
    return file


@pytest.fixture(scope="module")
def command(objects, zero123_file):
    small = [word for word in SMALL if word != "--no-mesh"]
    return ["--objects", str(objects), "--prior", str(zero123_file), "--seeds", "0:2",
            *small, *FEW]  # fmt: skip


@pytest.fixture(scope="module")
def made(command, quick_compilation, tmp_path_factory):
    """A folder in which all objects were made, and not yet judged."""
    out = tmp_path_factory.mktemp("study") / "out"
    changes = ["--set", "sds:guidance_scale=4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meshes, "with_points", with_points)
        assert evaluate.main([*command, *changes, "--out", str(out), "--no-score"]) == 0
    return out


def test_every_object_is_made_from_its_own_picture(made):
    assert {path.name for path in made.iterdir()} == {"config.json", "truth.npz", "dsd", "sds"}
    assert (
        json.loads((made / "sds" / "config.json").read_text())["recipe"]["method"]["guidance_scale"]
        == 4
    )
    with np.load(made / "truth.npz") as truth:
        assert list(truth) == NAMES
        bed, pineapple = (truth[name].astype(float) for name in NAMES)
    assert bed.shape == (8, 128, 128, 4)
    colours = [views[..., :3].sum((0, 1, 2)) for views in (bed, pineapple)]
    assert np.argmax(colours, 1).tolist() == [2, 1]  # blue, green
    found = [np.load(made / "dsd" / f"{name}.npz")["views"].astype(int) for name in NAMES]
    assert all(views.shape == (2, 8, 128, 128, 4) for views in found)
    assert np.ptp(found[0][..., 3]) > 0 and np.abs(found[0] - found[1]).max() > 0


def test_the_truth_is_seen_as_a_run_is():
    """From the picture on the cameras of both stand alike; lights do not move with them."""
    plan = evaluate.plan_around(2)
    assert plan.azimuth[:, 0] == pytest.approx(np.radians(30))
    turn = np.degrees(plan.azimuth - plan.azimuth[:, :1])
    np.testing.assert_allclose(turn, np.tile(judge.AZIMUTHS_DEG, (2, 1)), atol=1e-4)
    np.testing.assert_allclose(np.degrees(plan.elevation), judge.ELEVATION_DEG, rtol=1e-6)
    key = plan.lights.directions[..., 0, :]
    assert (key == key[:, :1]).all() and (key[0] != key[1]).any()


def test_the_truth_is_the_object_turned_to_its_picture_s_camera(made, objects):
    """The bed's corners, turned by -30 degrees and projected by hand with a run's cameras."""
    corners = load_objects(objects).triangles(0).reshape(-1, 3)
    corners = corners @ TURN
    with np.load(made / "truth.npz") as truth:
        masks = truth[NAMES[0]][..., 3] > 127
    for azimuth, mask in zip(np.radians(judge.AZIMUTHS_DEG), masks, strict=True):
        pose = np.asarray(orbit(azimuth, np.radians(20), 2.7, np.radians(40)).camera_to_world)
        local = (corners - pose[:3, 3]) @ pose[:3, :3]
        x, y = (local[:, :2] / -local[:, 2:] / np.tan(np.radians(20))).T
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        edges = [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]
        expected = [64 - 64 * y.max(), 64 - 64 * y.min(), 64 + 64 * x.min(), 64 + 64 * x.max()]
        np.testing.assert_allclose(edges, expected, atol=1.5)


def test_points_of_the_truth_are_turned_as_its_pictures_are(objects):
    """The bed's corners by hand; all points lie on its sides."""
    data = load_objects(objects)
    turned = data.triangles(0).reshape(-1, 3) @ TURN
    points = evaluate.shape_of(data, 0)
    np.testing.assert_allclose(np.ptp(points, 0), np.ptp(turned, 0), atol=0.02)
    halves = np.abs(points @ TURN.T) / data.triangles(0).reshape(-1, 3).max(0)
    np.testing.assert_allclose(halves.max(1), 1, atol=1e-3)


def test_judged_in_a_second_call_and_nothing_is_made_again(
    command, made, objects, capsys, monkeypatch
):
    monkeypatch.setattr(batch, "make_all", None)
    changes = ["--set", "sds:guidance_scale=4"]
    capsys.readouterr()
    assert evaluate.main([*command, *changes, "--out", str(made)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("| method | reference psnr | reference iou | psnr mean |")
    assert "Means over 2 held-out objects of 2 seeds each." in printed
    assert (made / "table.md").read_text() in printed
    rows = json.loads((made / "scores.json").read_text())
    assert list(rows) == ["dsd", "sds"]
    for row in rows.values():
        assert list(row["objects"]) == NAMES
        for name in ("reference_psnr", "iou_best", "hidden", "seconds"):
            mean = np.mean([each[name] for each in row["objects"].values()])
            assert row[name] == pytest.approx(mean)
        assert row["psnr_best"] >= row["psnr_mean"] > 0
        assert row["perceptual_best"] <= row["perceptual_mean"]
        assert 0 <= row["iou_mean"] <= row["iou_best"] <= 1
        assert row["chamfer_mean"] == row["chamfer_best"]  # the second seed has no mesh
    sphere = with_points([0, 0], ring(judge.AZIMUTHS_DEG, 20, 2.7, 40))["points"][:1]
    shapes = [evaluate.shape_of(load_objects(objects), i) for i in (0, 2)]
    expected = [chamfer.of_seeds(sphere, shape)["chamfer_mean"] for shape in shapes]
    assert rows["dsd"]["chamfer_mean"] == pytest.approx(np.mean(expected))
    assert "| perceptual best | chamfer mean | chamfer best |" in printed
    assert rows["dsd"]["hidden_of_sds"] == rows["dsd"]["hidden"] / rows["sds"]["hidden"]
    table = list(csv.DictReader((made / "table.csv").open()))
    assert [row["method"] for row in table] == ["dsd", "sds"]
    assert float(table[0]["hidden"]) == rows["dsd"]["hidden"]
    for name in NAMES:
        with Image.open(made / f"{name}.png") as sheet:
            assert sheet.height == 20 + 8 * 98 - 2 and sheet.width > 5 * 98 - 2


def test_one_that_is_missing_is_made_as_it_was(command, made, capsys):
    """Alone instead of with the other."""
    file = made / "dsd" / f"{NAMES[1]}.npz"
    before = np.load(file)["views"].astype(int)
    file.unlink()
    flags = ["--methods", "dsd", "--out", str(made), "--no-score", "--no-mesh"]
    assert evaluate.main([*command, *flags]) == 0
    assert capsys.readouterr().out.startswith(f"dsd: {NAMES[1]}: ")
    np.testing.assert_allclose(np.load(file)["views"].astype(int), before, atol=1)


def test_a_folder_of_other_settings_is_refused(command, made, capsys):
    for change, told in (
        (["--count", "1"], "--count 20, not 1"),
        (["--seeds", "0:3"], "--seeds '0:2', not '0:3'"),
        (["--t-min", "0.2"], "--optimise.t-min"),
        (["--methods", "sds"], "--method.guidance-scale 4.0, not 2.0"),
    ):
        assert evaluate.main([*command, *change, "--out", str(made)]) == 2
        error = capsys.readouterr().err
        assert told in error and "give the same flags, or choose another --out" in error


def test_on_white():
    """Grey where there is nothing, half of it, and none."""
    views = np.array([[204, 204, 204, 0], [102, 112, 122, 128], [10, 20, 30, 255]], np.uint8)
    white = 255 * from_pictures.on_white(views)
    np.testing.assert_allclose(white, [[255] * 3, [127.4, 137.4, 147.4], [10, 20, 30]], atol=0.01)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--objects", "none.npz"], "none.npz does not exist: pack one"),
        (["--count", "0"], "--count must be at least 1, not 0"),
        (["--seeds", "3"], "--seeds must name at least two"),
        (["--methods", "dsd,dsd"], "--methods: dsd comes twice"),
        (["--methods", "dsd,sdss"], "did you mean sds?"),
        (["--methods", "nfsd"], "method NFSD needs a prompt for bad pictures"),
        (["--set", "ism:eta=1"], "--set 'ism' is not one of dsd, sds"),
        (["--set", "dsd:background=grey,eta=2"], "--method.eta must lie in 0..1, not 2.0"),
        (["--background", "random"], "plain: --render.background grey or white, not random"),
        (["--set", "sds:fov_deg=30"], "--camera.distance must be those of the pictures"),
        (["--preset", "standrad"], "did you mean standard?"),
        (["--prior", "toybox-1to2"], "did you mean 'toybox-1to3'?"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(command, tmp_path, capsys, flags,
                                                    message):  # fmt: skip
    out = tmp_path / "out"
    assert evaluate.main([*command, "--out", str(out), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not out.exists()


def test_objects_that_are_all_trained_on_are_refused(command, tmp_path, capsys):
    file, out = tmp_path / "trained.npz", tmp_path / "out"
    save_objects(file, [BOXES[1], BOXES[3]])
    assert evaluate.main([*command, "--objects", str(file), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "none of the 2 is held out and has colours of its own" in error
    assert error.count("\n") == 1 and not out.exists()


def test_no_objects_at_all(capsys):
    assert evaluate.main([]) == 2
    assert "--objects is missing" in capsys.readouterr().err


def test_a_prior_that_takes_a_prompt_is_refused(command, tiny_prior_folder, tmp_path, capsys):
    flags = ["--prior", str(tiny_prior_folder), "--out", str(tmp_path / "out")]
    assert evaluate.main([*command, *flags]) == 2
    assert "takes a prompt and not a picture" in capsys.readouterr().err
