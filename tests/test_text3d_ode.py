"""Flags of experiments/text3d.py that keep a seed's ODE."""

import json

import pytest
from programs import SMALL, load_script

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def text3d():
    return load_script("text3d")


def test_a_run_with_a_table(text3d, tiny_prior_folder, tmp_path):
    flags = ["--seeds", "0:2", "--steps", "3", "--ode", "table", "--ode-azimuth-bins", "2",
             "--ode-elevation-bins", "1", "--ode-table-points", "5"]  # fmt: skip
    command = ["--prompt", "a red house", "--prior", str(tiny_prior_folder), *SMALL, *flags]
    assert text3d.main([*command, "--out", str(tmp_path)]) == 0
    (run,) = tmp_path.iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    kept = 2 * 5 * 4 * 4 * 4 * 2  # bins, points, latent, bytes
    assert metrics["planned_memory_gb"]["cache"] == pytest.approx(kept / 1e9, abs=1e-6)
    assert set(metrics["seeds"]) == {"0", "1"}
    assert 0 < metrics["seeds"]["1"]["ode_error"] < 1


def test_what_cannot_be_kept_is_said_in_one_line(text3d, tmp_path, capsys):
    command = ["--prompt", "a house", "--ode", "table", "--ode-table-points", "2"]
    assert text3d.main([*command, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: --ode-table-points must be at least 3, not 2"
    assert not (tmp_path / "out").exists()
