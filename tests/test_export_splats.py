"""export_splats.py on a run of three seeds, of which one is empty."""

import json
from functools import partial

import pytest
from programs import load_script
from soft_balls import make_run

from dsd_jax.cli.program import BAD_INPUT
from dsd_jax.export import manifest, splat_files
from dsd_jax.export.run_folder import seed_folder
from dsd_jax.export.splats import SplatSettings
from dsd_jax.files import write_json


@pytest.fixture(scope="module")
def export_splats(quick_compilation):
    module = load_script("export_splats")
    small = partial(SplatSettings, views=4, size=48, samples=16, tiles=36)
    small.count, small.steps = SplatSettings.count, SplatSettings.steps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SplatSettings", small)
        yield module


@pytest.fixture
def run(tmp_path):
    """A finished one."""
    folder = make_run(tmp_path / "run", prompt="a ball", seeds=[0, 1, 3], preset="quick")
    write_json(folder / "metrics.json", {"seeds": {seed: {"steps": 1} for seed in "013"}})
    manifest.write_manifest(folder)
    return folder


FEW = ["--count", "500", "--steps", "3"]


def test_all_seeds_but_the_empty_one(export_splats, run, capsys):
    assert export_splats.main([str(run), *FEW]) == export_splats.INCOMPLETE
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "error: seed 1 has no splats: the field is empty: nothing in it hides half of the "
        "background",
        "1 of 3 seeds have no splats",
    ]
    assert said.out.startswith("seed 0: 500 splats, ") and "seed 3: 500 splats, " in said.out
    for seed in (0, 3):
        found = splat_files.load(seed_folder(run, seed) / "splats.ply")
        assert found.centres.shape == (500, 3) and found.centres[:, 1].mean() > 0
        report = json.loads((seed_folder(run, seed) / "splats.json").read_text())
        assert len(report["psnr_db"]) == 8
    assert manifest.faults(run) == []
    listed = json.loads((run / "manifest.json").read_text())["files"]
    assert {"seed_0000/splats.ply", "seed_0003/splats.json", "index.html"} <= set(listed)
    page = (run / "index.html").read_text()
    assert "seed_0003/splats.ply" in page and "seed_0001/splats.ply" not in page


def test_another_folder_and_the_seeds_may_be_chosen(export_splats, run, tmp_path, capsys):
    out = tmp_path / "elsewhere"
    assert export_splats.main([str(run), *FEW, "--seeds", "3", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert [path.name for path in out.iterdir()] == ["seed_0003"]
    assert not list(run.glob("seed_*/splats.*")) and not (run / "index.html").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--count", "3"], "--count must be from 100 to 200000, not 3"),
        (["--steps", "0"], "--steps must be from 1 to 10000, not 0"),
        (["--seeds", "0:0"], "'0:0' is an empty range; write start:end"),
        (["--out", __file__], "Not a directory; choose another folder"),
    ],
)
def test_bad_flags_are_refused_in_one_line(export_splats, run, capsys, flags, message):
    assert export_splats.main([str(run), *flags]) == BAD_INPUT
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1


def test_folders_that_are_no_run_are_refused(export_splats, tmp_path, capsys):
    assert export_splats.main([str(tmp_path)]) == BAD_INPUT
    assert "config.json does not exist; give the folder of a finished run" in (
        capsys.readouterr().err
    )
