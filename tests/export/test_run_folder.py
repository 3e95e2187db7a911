"""Names of a run's folder and files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dsd_jax.export import run_folder
from dsd_jax.export.overview import Row, write_overview


def test_folders(tmp_path):
    config = {"prompt": "a house", "steps": 10, "lr": 0.1}
    folder = run_folder.run_folder(tmp_path, "a house", config)
    assert re.fullmatch(r"a-house-[0-9a-f]{8}", folder.name) and not folder.exists()
    reordered = {"lr": np.float64(0.1), "steps": np.int32(10), "prompt": "a house"}
    assert run_folder.run_folder(tmp_path, "a house", reordered) == folder
    assert run_folder.run_folder(tmp_path, "a house", config | {"steps": 11}) != folder
    assert run_folder.seed_folder("run", 7) == Path("run/seed_0007")
    assert run_folder.seed_folder("run", 123456).name == "seed_123456"
    names = [run_folder.view_name(45.0 * i) for i in range(9)]
    assert names[:2] == ["az000.png", "az045.png"] and names[7:] == ["az315.png", "az000.png"]


def test_seeds_are_the_folders_that_are_there(tmp_path):
    for name in ("seed_0010", "seed_0002", "seed_12345", "seed_x", "views"):
        (tmp_path / name).mkdir()
    assert run_folder.seeds_of(tmp_path) == [2, 10, 12345]
    with pytest.raises(FileNotFoundError, match="holds no seed_0000 or another seed"):
        run_folder.seeds_of(tmp_path / "views")


@pytest.mark.parametrize(
    "wrong",
    [
        {"diversity": []}, {"diversity": "0.4"}, {"psnr_db": {}}, {"mask_iou": float("inf")},
        {"fidelity": [0.5]}, {"fidelity": 0.5}, {"fidelity": {"accepted": []}}, {"seconds": 12.5},
        {"seconds": {"total": float("inf")}}, {"lost": 3}, {"interrupted": "no"}, {"device": 0},
        {"devices": []}, {"seeds": {"3": {"steps": "8"}}}, {"seeds": {"3": {"accepted": []}}},
        {"seeds": {"3": {"geometry": [1]}}}, {"seeds": {"3": {"lost": {}}}},
        {"seeds": {"3": {"neighbours": "house"}}}, {"seeds": {"3": []}}, {"seeds": {"x": {}}},
        {"seeds": {"9" * 5000: {}}}, {"seeds": None},
    ],
)  # fmt: skip
def test_scores_that_are_none_are_refused_and_a_page_of_many_runs_goes_without(tmp_path, wrong):
    whole = {"diversity": None, "fidelity": None, "seeds": {"3": {"steps": 8, "accepted": None}}}
    place = tmp_path / "metrics.json"
    place.write_text(json.dumps(whole))
    assert run_folder.read_metrics(tmp_path) == whole
    place.write_text(json.dumps(whole | wrong))
    with pytest.raises(ValueError, match=r"metrics.json is damaged: ") as caught:
        run_folder.read_metrics(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    write_overview(tmp_path, [Row("a red house", tmp_path, "complete")])
    (row,) = json.loads((tmp_path / "overview.json").read_text())["runs"]
    assert row["seeds"] == [] and "diversity" not in row
