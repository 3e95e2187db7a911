"""The runs that `dsd app` shows, and the files that it hands out."""

import pytest
from gallery_run import make_run

from dsd_jax.cli import app_runs, lock
from dsd_jax.files import write_json


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    make_run(out / "a-house-1a2b3c4d", seeds=range(2), prompt="a house")
    write_json(out / "a-tree-00000000" / "config.json",
               {"prompt": "a tree", "seeds": [0], "recipe": {}})  # fmt: skip
    write_json(out / "pictures-of-11111111" / "config.json", {"prompt": "2D", "seeds": [0]})
    (out / "secret-22222222").symlink_to(out / "a-house-1a2b3c4d")
    (out / "secret.txt").write_text("secret")
    return out


def test_the_list(out):
    runs = {run.name: run for run in app_runs.runs_of(out)}
    assert sorted(runs) == ["a-house-1a2b3c4d", "a-tree-00000000"]
    house, tree = runs["a-house-1a2b3c4d"], runs["a-tree-00000000"]
    assert (house.title, house.state, house.seeds) == ("a house", "complete", [0, 1])
    assert (tree.title, tree.state, tree.seeds) == ("a tree", "unfinished", [])
    with lock.held(out / tree.name):
        assert app_runs.read(out, tree.name).state == "growing"


def test_files_are_results_of_a_run(out):
    run = app_runs.read(out, "a-house-1a2b3c4d")
    own = out / run.name / "seed_0000"
    assert app_runs.files_of(out, run, "0") == {
        "mesh.glb": own / "mesh.glb", "field.safetensors": own / "field.safetensors",
    }  # fmt: skip
    assert "mesh.glb" not in app_runs.files_of(out, run, 1)  # it has none
    (own / "mesh.stl").symlink_to(out / "secret.txt")
    assert "mesh.stl" not in app_runs.files_of(out, run, 0)
    (own / "mesh.stl").unlink()


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", None, 7, ["a-house-1a2b3c4d"], "../runs/a-house-1a2b3c4d", "secret-22222222",
     "a-house-1a2b3c4d/seed_0000", "/etc", "nothing-33333333", "pictures-of-11111111"],
)  # fmt: skip
def test_what_names_no_run_is_refused(out, name):
    with pytest.raises(ValueError, match=r"there is no run|is no 3D run"):
        app_runs.read(out, name)


@pytest.mark.parametrize("seed", [2, -1, "0/..", "../seed_0000", None, True, 0.5, [0]])
def test_what_names_no_seed_is_refused(out, seed):
    run = app_runs.read(out, "a-house-1a2b3c4d")
    with pytest.raises(ValueError, match="has no seed"):
        app_runs.files_of(out, run, seed)
