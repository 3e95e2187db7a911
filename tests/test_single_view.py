"""single_view.py from the command line to the last file, with a prior made here."""

import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from programs import SMALL, in_miniature, load_script, signalled

from dsd_jax.cli.program import BAD_INPUT
from dsd_jax.cli.single_view import doubts
from dsd_jax.engine.task import picture_task
from dsd_jax.recipe import elevation, presets
from dsd_jax.recipe.input_picture import prepare
from dsd_jax.recipe.recipe import changed, with_method

GOLDEN = os.environ.get("DSD_GOLDEN")


@pytest.fixture(scope="module")
def single_view(quick_compilation):
    with in_miniature():
        yield load_script("single_view")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A red ellipse on nothing, 40 x 30 pixels."""
    y, x = np.mgrid[:30, :40]
    inside = ((y - 15) / 12) ** 2 + ((x - 20) / 9) ** 2 < 1
    rgba = np.zeros((30, 40, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 220, 255 * inside
    file = tmp_path_factory.mktemp("picture") / "Red egg.png"
    Image.fromarray(rgba).save(file)
    return file


@pytest.fixture(scope="module")
def egg(single_view, zero123_file, picture, tmp_path_factory):
    """The arguments of a whole run of two seeds, but for its --out, and the folder it wrote.

    The prior's estimate of the picture's elevation is 25 degrees.
    """
    arguments = ["--image", str(picture), "--seeds", "0:2", "--steps", "6",
                 "--method", "sds", "--prior", str(zero123_file), *SMALL]  # fmt: skip
    out = tmp_path_factory.mktemp("egg")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(elevation, "estimate", lambda *args: 25.0)
        assert single_view.main([*arguments, "--out", str(out)]) == 0
    (run,) = out.iterdir()
    return arguments, run


def test_results_and_what_they_say_of_the_picture(egg):
    _, run = egg
    assert run.name.startswith("red-egg-")
    for seed in ("seed_0000", "seed_0001"):
        written = {path.name for path in (run / seed).iterdir()}
        assert {"turntable.mp4", "views", "field.safetensors", "field.json"} <= written
    metrics = json.loads((run / "metrics.json").read_text())
    each = metrics["seeds"].values()
    assert metrics["interrupted"] is False and len(each) == 2
    for name in ("diversity", "psnr_db", "mask_iou"):
        assert metrics[name] == pytest.approx(np.mean([seed[name] for seed in each]))
    assert all(0 <= seed["mask_iou"] <= 1 and seed["reference_colour"] > 0 for seed in each)
    config = json.loads((run / "config.json").read_text())
    assert "picture.png" in json.loads((run / "manifest.json").read_text())["files"]
    assert np.asarray(Image.open(run / "picture.png")).reshape(-1, 3)[0].tolist() == [204] * 3
    assert '"picture": "picture.png"' in (run / "index.html").read_text()
    assert config["image"] == "Red egg.png"
    assert config["elevation_deg"] == 25 and config["elevation"] == "auto"
    camera = config["recipe"]["camera"]
    assert camera["fov_deg"] == 49.1  # Zero-1-to-3's own
    spanned = camera["distance"] * np.tan(np.deg2rad(49.1 / 2))
    assert spanned == pytest.approx(2.7 * np.tan(np.deg2rad(20)))


def test_the_picture_stands_beside_the_seeds(egg):
    """On grey, like the objects; three columns."""
    sheet = np.asarray(Image.open(egg[1] / "seeds.png")).astype(int)
    column = sheet.shape[1] // 3
    middle, corner = sheet[20 + 96, column // 2], sheet[20 + 4, 4]
    assert np.abs(middle - [220, 0, 0]).max() <= 8
    assert np.abs(corner - 204).max() <= 2


def test_the_same_command_again_does_not_estimate_again(egg, single_view, monkeypatch, capsys):
    """Another seed of the same picture does not either; a number is taken as it is."""
    arguments, run = egg
    monkeypatch.setattr(elevation, "estimate", None)
    where = ["--out", str(run.parent)]
    assert single_view.prepare(*single_view.parse([*arguments, *where])).folder == run
    (line,) = capsys.readouterr().err.splitlines()
    said = "elevation of the picture: 25 degrees, as an earlier run estimated it; "
    assert line.startswith(said)
    other = single_view.prepare(*single_view.parse([*arguments, *where, "--seeds", "7"]))
    assert other.config["elevation_deg"] == 25
    given = single_view.prepare(*single_view.parse([*arguments, *where, "--elevation-deg", "40"]))
    assert given.config["elevation_deg"] == 40 and "elevation" not in given.config


@pytest.mark.slow
def test_cut_off_it_goes_on_to_the_same_objects(egg, single_view, tmp_path):
    arguments, unbroken = egg
    arguments = [*arguments, "--elevation-deg", "25", "--out", str(tmp_path)]
    with signalled(signal.SIGTERM):
        assert single_view.main(arguments) == 128 + signal.SIGTERM
    assert single_view.main(arguments) == 0
    for seed in ("seed_0000", "seed_0001"):
        (found,) = tmp_path.glob(f"*/{seed}/field.safetensors")
        assert found.read_bytes() == (unbroken / seed / found.name).read_bytes()


@pytest.mark.skipif(not GOLDEN, reason="DSD_GOLDEN does not name the folder of zero123_tiny")
def test_the_authors_miniature_runs(single_view, zero123_file, random_tensors, picture, tmp_path):
    """Its denoiser and projection; the autoencoder and the vision encoder are made here."""
    from safetensors.numpy import load_file, save_file

    assert GOLDEN is not None
    stem = Path(GOLDEN) / "zero123_tiny"
    config = json.loads(zero123_file.with_suffix(".json").read_text())
    config["unet"] = json.loads(stem.with_suffix(".json").read_text())
    config["image_encoder"]["embed_dim"] = config["unet"]["context_dim"]
    tensors = random_tensors(config) | load_file(stem.with_suffix(".safetensors"))
    save_file(tensors, tmp_path / "zero123.safetensors")
    (tmp_path / "zero123.json").write_text(json.dumps(config))
    arguments = ["--image", str(picture), "--seeds", "0", "--steps", "2", "--method", "sds",
                 "--prior", str(tmp_path / "zero123.safetensors"),
                 "--out", str(tmp_path / "out"), *SMALL]  # fmt: skip
    assert single_view.main(arguments) == 0
    (metrics,) = (tmp_path / "out").glob("*/metrics.json")
    loss = json.loads(metrics.read_text())["seeds"]["0"]["loss"]
    assert np.isfinite(loss) and loss > 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--elevation-deg", "steep"], "--elevation-deg must be auto or lie inside -90..90"),
        (["--elevation-deg", "95"], "--elevation-deg must be auto or lie inside -90..90, not 95"),
        (["--preset", "quik"], "--preset 'quik' is not one of authors, best, draft, quick,"),
        (["--mask", ""], "--mask is empty"),
        (["--image", "https://a.org/b.png"], "--image is a URL; download it first"),
        (["--mask", "nothing.png"], "--mask nothing.png does not exist"),
        (["--prior", "toybox-1to2"], "did you mean 'toybox-1to3'?"),
        (["--fov-deg", "200"], "--camera.fov-deg must lie inside 0..180"),
        (["--fov-deg", "120"], "--camera.distance must exceed the object's radius"),
        (["--image", "nothing.png"], "2 pictures and 0 azimuths: give --image-azimuth after each"),
        (
            ["--image", "x.png", "--image-azimuth", "0", "--image-azimuth", "360"],
            "two pictures have one --image-azimuth",
        ),
        (
            [
                "--image",
                "x.png",
                "--image-azimuth",
                "0",
                "--image-azimuth",
                "90",
                "--mask",
                "x.png",
            ],
            "2 pictures and 1 masks",
        ),
        (["--image-azimuth", "nan"], "--image-azimuth must be a number of degrees"),
        (["--image-azimuth", "1e30"], "degrees from -360 to 360"),
        (["--elevation-deg", "9", "--elevation-deg", "9"], "1 pictures and 2 elevations"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(single_view, picture, tmp_path, capsys, flags, said):
    """None of these loads a prior."""
    out = tmp_path / "out"
    assert single_view.main(["--image", str(picture), *flags, "--out", str(out)]) == BAD_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and said in line
    assert not out.exists()


def test_a_mask_is_no_remedy_for_a_depth(picture, tmp_path):
    Image.new("L", (40, 30), 77).save(tmp_path / "d.png")
    depth = prepare(picture, None, tmp_path / "d.png")
    (line,) = doubts([picture], depth)
    assert line.endswith("d.png says the same depth everywhere")
    (line,) = doubts([picture], depth._replace(doubts=[*depth.doubts, "the object is tiny"]))
    assert line.endswith("the object is tiny; --mask says where the object is")
    assert doubts([picture], depth._replace(doubts=[])) == []


def test_no_picture_at_all(single_view, capsys):
    assert single_view.main([]) == BAD_INPUT
    assert "--image is missing" in capsys.readouterr().err
    assert single_view.main(["--image", "nothing.png"]) == BAD_INPUT
    assert "--image nothing.png does not exist" in capsys.readouterr().err


def test_two_pictures(egg, single_view, picture, tmp_path):
    """A whole run of one seed, refined; the other picture is another run, whose command says so."""
    Image.open(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "back.png")
    more = ["--image-azimuth", "0", "--image", str(tmp_path / "back.png"), "--image-azimuth",
            "180", "--elevation-deg", "20", "--seeds", "3", "--steps", "2", "--rounds", "1",
            "--fit-steps", "2", "--groups", "1", "--ddim-steps", "2"]  # fmt: skip
    assert single_view.main([*egg[0], *more, "--out", str(tmp_path / "out")]) == 0
    (run,) = (tmp_path / "out").iterdir()
    config = json.loads((run / "config.json").read_text())
    assert config["azimuths_deg"] == [0, 180] and len(config["given"]["image"]) == 2
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["interrupted"] is False and metrics["lost"] == []
    assert single_view.main([*egg[0], *more, "--out", str(tmp_path / "out")]) == 0  # complete


def test_what_a_picture_does_not_go_with_is_refused():
    """Before the prior is asked for anything."""
    recipe = presets.of_picture(presets.quick)
    with pytest.raises(ValueError, match="method NFSD needs a prompt for bad pictures"):
        picture_task(None, None, with_method(recipe, "nfsd"))
    with pytest.raises(ValueError, match=r"--render.background grey or white, not random"):
        picture_task(None, None, changed(recipe, background="random"))


def test_a_prior_that_takes_a_prompt_is_refused(
    single_view, picture, tiny_prior_folder, tmp_path, capsys
):
    out = str(tmp_path / "out")
    command = ["--image", str(picture), "--prior", str(tiny_prior_folder), "--out", out]
    assert single_view.main(command) == BAD_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "takes a prompt and not a picture" in line


def test_the_camera_of_toybox_is_the_default(single_view):
    def camera(*flags):
        return single_view.parse(flags)[1].camera

    assert (camera().fov_deg, camera().distance) == (40.0, 2.7)
    assert camera("--fov-deg", "20", "--distance", "4").distance == 4
    assert camera("--camera.fov-deg=20", "--camera.distance=4").distance == 4
    spanned = 2.7 * np.tan(np.deg2rad(20))
    assert camera("--fov-deg", "60").distance == pytest.approx(spanned / np.tan(np.deg2rad(30)))
    assert jax.default_backend() != "cpu" or single_view.parse([])[0].run.preset == "quick"


def test_the_guidance_of_a_picture_is_the_preset_s_unless_it_is_said(single_view):
    def scale(*flags):
        args, recipe = single_view.parse(flags)
        assert args.run.guidance_scale in (recipe.method.guidance_scale, 2.0)
        return recipe.method.guidance_scale

    assert scale() == scale("--preset", "standard") == 2.0
    assert scale("--guidance-scale", "4") == scale("--method.guidance-scale", "4") == 4.0
