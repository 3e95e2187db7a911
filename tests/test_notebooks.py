"""The notebooks: run in a fresh kernel in miniature, and stored with their pictures."""

import base64
import io
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
SMALL = {
    "resolution": 8, "late_resolution": 8, "samples": 4, "levels": 2, "start_levels": 2,
    "log2_entries": 8, "occupancy_resolution": 8, "final_samples": 4, "ode_points": 3,
    "azimuth_bins": 2, "rounds": 0,
}  # fmt: skip
REFINED = {
    "rounds": 1, "fit_steps": 2, "groups": 1, "rays": 64, "fit_samples": 4, "ddim_steps": 2,
    "target_samples": 4, "target_resolution": 16,
}  # fmt: skip
TURN = {"turntable_frames": 2, "turntable_resolution": 16}
# What is put behind a notebook's cell of parameters so that it takes seconds.
MINIATURE = {
    "00_colab": f"""
import tempfile
SEEDS, OUT, MESHES = range(2), tempfile.mkdtemp(), False
RECIPE = dsd.changed(dsd.recipes.quick, steps=2, **{SMALL | TURN})
""",
    "01_ode_trajectories": "SEEDS, TOYBOX_SEEDS, POINTS = range(60), range(1), 9",
    "02_score_distillation_in_2d": "SEEDS, TOYBOX_SEEDS, STEPS = range(60), range(2), 4",
    "03_text_to_3d": f"""
SEEDS, STEPS, FRAMES, SIZE, PULLS, OVERRIDES = range(2), 8, 2, 16, 2, {SMALL | REFINED}
""",
    "04_your_own_method": "SEEDS, TOYBOX_SEEDS, STEPS = range(60), range(2), 3",
    "05_single_view": f"""
SEEDS, STEPS, DDIM_POINTS, AZIMUTHS_DEG = range(2), 2, 3, [0.0, 120.0, 240.0]
OVERRIDES = {SMALL}
""",
}
EXPLAINS = [name for name in MINIATURE if name != "00_colab"]  # that one is for results
# With a tiny prior; Toybox takes minutes.
QUICK = ("01_ode_trajectories", "03_text_to_3d", "04_your_own_method")
every_notebook = pytest.mark.parametrize("name", MINIATURE)
executed = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MINIATURE],
)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def pictures(notebook) -> list[Image.Image]:
    files = [
        data
        for output in outputs(notebook)
        for kind, data in output.get("data", {}).items()
        if kind in ("image/png", "image/jpeg")
    ]
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in files]


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(MINIATURE)


@executed
def test_it_runs_in_a_fresh_kernel(name, monkeypatch, tmp_path, tiny_rgba_prior_folder):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    stored = len(pictures(notebook))
    (place,) = (
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())
    )
    prior = (
        f"\nPRIOR, PROMPT = {str(tiny_rgba_prior_folder)!r}, 'a red house'" if name in QUICK else ""
    )
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(MINIATURE[name] + prior))
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=folder).execute()
    assert all(cell.execution_count for cell in code_cells(notebook))
    assert not any(output.output_type == "error" for output in outputs(notebook))
    assert len(pictures(notebook)) == stored
    assert not any(tmp_path.iterdir())  # a notebook writes no files


@every_notebook
def test_it_is_stored_as_executed_with_its_pictures(name):
    path = FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for output in outputs(notebook))
    assert not any(output.get("name") == "stderr" for output in outputs(notebook))
    found = pictures(notebook)
    assert found and all(min(picture.size) > 80 for picture in found)
    assert path.stat().st_size < 2**20


@pytest.mark.parametrize("name", EXPLAINS)
def test_it_explains_and_can_be_played_with(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    assert len(pictures(notebook)) >= 2
    assert any("interactive(" in str(output.get("data", "")) for output in outputs(notebook))
    text = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert len(text.split()) > 250


def test_the_turntable_of_the_third_turns():
    notebook = nbformat.read(FOLDER / "03_text_to_3d.ipynb", 4)
    assert [getattr(picture, "n_frames", 1) for picture in pictures(notebook)].count(12) == 1


def test_the_first_shows_the_gallery():
    notebook = nbformat.read(FOLDER / "00_colab.ipynb", 4)
    (page,) = (
        html for output in outputs(notebook)
        if "<iframe" in (html := output.get("data", {}).get("text/html", ""))
    )  # fmt: skip
    assert page.count("data:video/mp4;base64,") == 4
    assert (FOLDER / "00_colab.ipynb").stat().st_size < 400_000


def test_all_of_them_are_small():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.ipynb")) < 1.6e6
