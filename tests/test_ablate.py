"""experiments/ablate.py in miniature."""

import json

import numpy as np
import pytest
from mesh_numbers import looked_at

from dsd_jax.cli import ablate
from dsd_jax.distillation import SDS
from dsd_jax.engine import memory
from dsd_jax.files import slug
from dsd_jax.recipe.presets import PRESETS
from dsd_jax.studies import meshes
from dsd_jax.studies.variants import VARIANTS, recipe_of

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = [
    "--preset", "quick", "--steps", "2", "--resolution", "8", "--late-resolution", "8",
    "--samples", "4", "--levels", "2", "--start-levels", "2", "--log2-entries", "8", "--width",
    "8", "--occupancy-resolution", "8", "--final-samples", "4", "--rounds", "0",
    "--density-floor", "0",
]  # fmt: skip


def test_variants_are_run_once_and_judged(tiny_prior_folder, tmp_path, capsys, monkeypatch):
    """Of the two seeds the second has no mesh."""
    monkeypatch.setattr(meshes, "looked_at", looked_at)
    out = tmp_path / "ablation"
    command = ["--out", str(out), "--prior", str(tiny_prior_folder), "--prompts", "a red house",
               "--seeds", "0:2", "--only", "default", "sds 5", *SMALL]  # fmt: skip
    assert ablate.main(command) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert {"default", "sds 5"} <= set(scores)
    row = scores["default"]["prompts"]["a red house"]
    assert 0 <= row["diversity"] <= 2 and 0 <= row["floaters"] <= 1
    assert row["accepted"] in (0.0, 0.5, 1.0) and 0 <= row["fidelity"] <= 1
    assert {"grain", "holes"} <= set(row)
    assert (row["mesh_iou"], row["one_part"], row["parts"], row["bump_deg"]) == (0.9, 1, 1, 12)
    assert row["bump"] == scores["default"]["bump"] and row["clay"] in (0, 1)
    table = (out / "table.md").read_text().splitlines()
    assert len(table) == len(scores) + 2 and table[2].startswith("| default | ")
    assert "| fidelity | direction | one front | grain | holes | floaters |" in table[0]
    assert "| floaters | bump | one part | self intersecting | clay | mesh iou |" in table[0]
    with np.load(out / "default" / "a-red-house.npz") as found:
        assert found["views"].shape == (2, 8, 128, 128, 3)

    capsys.readouterr()
    assert ablate.main(command) == 0
    assert "a red house:" not in capsys.readouterr().out

    assert ablate.main([*command, "--eta", "0.3"]) == 2
    error = capsys.readouterr().err
    assert "--method.eta 1.0, not 0.3; give the same flags, or choose another --out" in error


def test_every_variant_is_valid():
    recipes = {name: recipe_of(name, PRESETS["standard"]) for name in VARIANTS}
    assert recipes["default"] == PRESETS["standard"] == recipes["ODE table"]
    assert recipes["sds 5"].method == SDS(guidance_scale=5.0, guidance_rescale=0.3)
    assert recipes["unrefined"].total_steps == recipes["unrefined"].steps == 300
    assert len({slug(name) for name in VARIANTS}) == len(VARIANTS)


def test_bad_input_leaves_nothing_behind(tmp_path, capsys):
    out = tmp_path / "x"
    assert ablate.main(["--out", str(out), "--prior", "toybix"]) == 2
    assert "did you mean 'toybox'?" in capsys.readouterr().err
    assert not out.exists()


def test_more_seeds_than_memory_holds_at_once(tiny_prior_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "bytes_available", lambda: 2 * 10**9)
    flags = ["--prior", str(tiny_prior_folder), "--prompts", "a red house", "--seeds", "0:100000"]
    assert ablate.main(["--out", str(tmp_path / "x"), *flags, *SMALL]) == 2
    said = capsys.readouterr().err
    assert "100000 seeds at once need about " in said and said.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("prompts", "said"), [([], "names no prompt"), (["a car"] * 2, "'a car' comes twice")]
)
def test_prompts_that_are_none_or_twice_the_same(tmp_path, capsys, prompts, said):
    assert ablate.main(["--out", str(tmp_path / "x"), "--prompts", *prompts]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_variant_that_comes_twice(tmp_path, capsys):
    assert ablate.main(["--out", str(tmp_path / "x"), "--only", "default", "default"]) == 2
    assert capsys.readouterr().err == "error: --only: default comes twice\n"
    assert not (tmp_path / "x").exists()


def test_unknown_variant(tmp_path, capsys):
    assert ablate.main(["--out", str(tmp_path / "x"), "--only", "defalt"]) == 2
    assert "did you mean default?" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
