"""experiments/compare.py in miniature."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from mesh_numbers import looked_at
from PIL import Image
from programs import EXPERIMENTS

from dsd_jax.cli import compare
from dsd_jax.cli.prompts import read
from dsd_jax.engine import memory
from dsd_jax.engine.lost import LOST
from dsd_jax.metrics import judge
from dsd_jax.metrics.bank import load_bank
from dsd_jax.studies import images2d, meshes
from dsd_jax.studies.compare import PROMPTS

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = [
    "--steps", "2", "--resolution", "8", "--late-resolution", "8", "--samples", "4", "--levels",
    "2", "--start-levels", "2", "--log2-entries", "8", "--width", "8", "--occupancy-resolution",
    "8", "--final-samples", "4", "--rounds", "0", "--density-floor", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def command(tiny_prior_folder):
    return ["--prior", str(tiny_prior_folder), "--prompts", "a red house", "--seeds", "0:2",
            "--ddim-steps", "4"]  # fmt: skip


def test_pictures_are_made_once_and_judged(command, tmp_path, capsys):
    out = tmp_path / "study"
    command = [*command, "--out", str(out), "--steps", "4", "--ode-points", "4"]
    names = ["dsd-star", "dsd-star@3", "dsd-plain@3", "sds"]
    made = [*command, "--methods", ",".join(names), "--set", "sds:guidance_scale=2"]
    assert compare.main([*made, "--no-score"]) == 0
    assert not (out / "table.md").exists()
    with np.load(out / "sds" / "a-red-house.npz") as found:
        assert found["views"].shape == (2, 1, 16, 16, 3) and found["views"].dtype == np.uint8
    config = json.loads((out / "sds" / "config.json").read_text())
    method = config["recipe"]["method"]
    assert (method["name"], method["guidance_scale"]) == ("sds", 2)

    capsys.readouterr()
    assert compare.main(made) == 0
    printed = capsys.readouterr().out
    assert "a red house:" not in printed and printed.startswith("| method | diversity |")
    rows = json.loads((out / "scores.json").read_text())
    assert set(rows) == {"ddim", *names}
    star = rows["dsd-star"]
    assert star["own_rms"] < 0.01 and star["nearest_own_rms"] == 1 and star["own"] < 1e-3
    assert star["of_ddim"] == pytest.approx(1, rel=0.05) and "own_rms" not in rows["ddim"]
    plain = rows["dsd-plain@3"]  # its simulated ODE has the grid of DDIM
    assert plain["own_rms"] < 0.01 and plain["nearest_own_rms"] == 1
    evaluations = {name: row["evaluations"] for name, row in rows.items()}
    assert evaluations == {"ddim": 8, "dsd-star": 8, "dsd-star@3": 6, "sds": 8,
                           "dsd-plain@3": 2 * (1 + 3 + 4 + 5)}  # fmt: skip
    assert rows["sds"]["prompts"]["a red house"]["category"] == "house"
    assert "| accepted | fidelity | similarity | grain | holes |" in printed
    table = list(csv.DictReader((out / "table.csv").open()))
    assert [row["method"] for row in table] == ["ddim", *names]
    assert float(table[1]["frechet"]) == star["frechet"]
    names = {path.name for path in out.iterdir() if path.is_file()}
    assert names == {"config.json", "scores.json", "table.md", "table.csv", "plot.png",
                     "grid_a-red-house.png"}  # fmt: skip
    with Image.open(out / "grid_a-red-house.png") as grid:
        assert grid.height == 20 + 5 * 98 - 2 and grid.width > 2 * 98 - 2

    config = json.loads((out / "dsd-plain-3" / "config.json").read_text())
    assert config["method"] == "dsd-plain" and config["recipe"]["steps"] == 3
    assert config["recipe"]["method"]["anchor"] == "interpolated"

    # What has been made is kept; what would not fit to it is refused.
    for change, told in (
        (["--methods", "sds"], "--method.guidance-scale 2.0, not 5.0"),
        (["--methods", "csd", "--t-min", "0.1"], "--optimise.t-min 0.02, not 0.1"),
        (["--methods", "csd", "--seeds", "0:3"], "--seeds '0:2', not '0:3'"),
    ):
        assert compare.main([*command, *change]) == 2
        assert f"{told}; give the same flags, or choose another --out" in capsys.readouterr().err
    assert not (out / "csd").exists()


def test_a_picture_that_is_not_finite_is_named_and_no_score_counts_it(
    command, tmp_path, capsys, monkeypatch
):
    def ddim(image, seeds, steps):
        return jnp.linspace(0, 1, 3 * 16 * 16 * 3).reshape(3, 16, 16, 3)

    def optimise(image, seeds, on_step=None):
        pictures = ddim(image, seeds, 1)
        return images2d.Result(pictures.at[1, 3, 4, 0].set(jnp.inf), pictures)

    monkeypatch.setattr(images2d, "ddim", ddim)
    monkeypatch.setattr(images2d, "optimise", optimise)
    flags = ["--seeds", "4,5,6", "--methods", "sds", "--out", str(tmp_path / "study")]
    assert compare.main([*command, *flags]) == LOST
    said = capsys.readouterr()
    assert "a red house: seed 5: its picture is not finite" in said.err
    assert "| seconds | lost |" in said.out
    rows = json.loads((tmp_path / "study" / "scores.json").read_text())
    assert rows["sds"]["lost"] == 1 and rows["ddim"]["lost"] == 0
    assert rows["sds"]["own_rms"] == 0  # of the two others
    assert compare.main([*command, *flags]) == LOST


def test_objects(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(meshes, "looked_at", looked_at)
    out = tmp_path / "study"
    command = [*command, "--out", str(out), "--task", "3d", "--preset", "quick", *SMALL]
    assert compare.main([*command, "--methods", "sds"]) == 0
    printed = capsys.readouterr().out
    assert "| holes | bump | one part | self intersecting | clay | mesh iou | own rms |" in printed
    assert "Of meshes, in 3D. Bump: over that of real objects" in printed
    with np.load(out / "sds" / "a-red-house.npz") as found:
        assert found["views"].shape == (2, 8, 128, 128, 3) and found["evaluations"] == 4
    with np.load(out / "ddim" / "a-red-house.npz") as found:
        assert found["views"].shape == (2, 4, 128, 128, 3) and found["evaluations"] == 4 * 8
        assert np.ptp(found["views"]) > 0
    rows = json.loads((out / "scores.json").read_text())
    assert 0 <= rows["sds"]["floaters"] <= 1 and rows["sds"]["own_rms"] > 0
    assert (rows["sds"]["mesh_iou"], rows["sds"]["one_part"]) == (0.9, 1)
    assert "mesh_iou" not in rows["ddim"]
    with Image.open(out / "sds" / "a-red-house.png") as sheet:
        assert sheet.height == 20 + 4 * 98 - 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "4d"], "--task '4d' is not one of 2d, 3d"),
        (["--methods", "sdss"], "did you mean sds?"),
        (["--methods", "sds,sds"], "--methods: sds comes twice"),
        (["--methods", ","], "--methods ',' names nothing"),
        (["--ddim-steps", "0"], "--ddim-steps must be from 2 to 100000, not 0"),
        (["--methods", "sds@x"], "--methods sds@x: what follows @ must be a number of steps"),
        (["--methods", "dsd-star@1"], "dsd-star@1 needs from 2 to 100000 steps"),
        (["--methods", "dsd-star", "--task", "3d"], "--methods 'dsd-star' is not one of"),
        (["--methods", "dsd-star", "--space", "pixels"], "dsd-star moves latents alone"),
        (["--methods", "dsd-plain", "--task", "3d"], "--methods 'dsd-plain' is not one of"),
        (["--methods", "dsd-plain@3", "--space", "network"], "dsd-plain moves latents alone"),
        (["--methods", "sds", "--set", "sdi:eta=1"], "--set 'sdi' is not one of ddim, sds"),
        (["--methods", "dsd", "--set", "dsd:eta=2"], "--method.eta must lie in 0..1, not 2.0"),
        (["--methods", "sds", "--set", "sds:eta=1"], "method SDS has a number eta"),
        (["--azimuth-deg", "1e300"], "--azimuth-deg must be a finite number"),
        (["--views", "2"], "--views must be 1 with --task 2d, not 2"),
        (["--seeds", "3"], "--seeds must name at least two"),
        (["--prompts", "none.txt"], "--prompts none.txt: there is no such file"),
        (["--prompts", "a house", "a house"], "'a house' comes twice"),
        (["--clip", "none"], "config.json is missing"),
        (["--prior", "toybix"], "did you mean 'toybox'?"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(command, tmp_path, capsys, flags,
                                                    message):  # fmt: skip
    out = tmp_path / "study"
    assert compare.main([*command, "--out", str(out), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("flags", [["--methods", "vsd"], ["--task", "3d", "--preset", "quick"]])
def test_more_seeds_than_memory_holds_at_once(command, tmp_path, capsys, monkeypatch, flags):
    monkeypatch.setattr(memory, "bytes_available", lambda: 2 * 10**9)
    command = [*command, "--out", str(tmp_path / "study"), "--seeds", "0:100000"]
    assert compare.main([*command, *flags]) == 2
    said = capsys.readouterr().err
    assert "100000 seeds at once need about " in said and said.count("\n") == 1
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("flags", "steps", "anchor"),
    [
        (["--methods", "dsd-plain"], 50, "interpolated"),
        (["--methods", "dsd-plain", "--set", "dsd-plain:steps=7,anchor=trajectory"], 7,
         "trajectory"),
        (["--methods", "dsd-plain@9"], 9, "interpolated"),
    ],
)  # fmt: skip
def test_steps_of_plain_descent(command, tmp_path, flags, steps, anchor):
    """--steps is not for it."""
    args, recipe = compare.parse([*command, "--out", str(tmp_path), "--steps", "4", *flags])
    (entry,) = (e for e in compare.read_entries(args, recipe) if e.kind == "dsd-plain")
    method = entry.recipe.method
    assert (entry.recipe.steps, method.anchor) == (steps, anchor)
    assert method.ode_points == steps + 1 and method.guidance_scale_prime == 5


def test_the_prompts_of_the_study_are_judged():
    prompts = read([str(EXPERIMENTS / "prompts" / "study.txt")])
    assert prompts == list(PROMPTS)
    nouns = load_bank().nouns
    assert len({judge.category_of(prompt, nouns) for prompt in prompts} - {None}) == 8


def test_a_prior_without_prompts_is_refused(command, zero123_folder, tmp_path, capsys):
    out = tmp_path / "study"
    flags = ["--prior", str(zero123_folder), "--out", str(out)]
    assert compare.main([*command, *flags]) == 2
    assert "takes an image and not a prompt" in capsys.readouterr().err
    assert not out.exists()
