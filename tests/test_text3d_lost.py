"""text3d.py where seeds come to nothing: they are named and marked, and the exit code is 3."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import arguments, in_miniature, load_script

from dsd_jax.cli import job
from dsd_jax.engine import generate, results
from dsd_jax.engine.lost import GONE, LOST
from dsd_jax.engine.saved import load_objects_of


@pytest.fixture(scope="module")
def text3d(quick_compilation):
    with in_miniature():
        yield load_script("text3d")


def test_seeds_that_come_to_nothing_are_left_out(text3d, tiny_prior_folder, tmp_path, capsys):
    """Of four seeds one diverges, and of one nothing is left, whose files are written."""

    def begun(task, chunk, real=generate.initial_states):
        states = real(task, chunk)
        bad = jnp.asarray(chunk) == 1
        grey = jnp.where(bad, jnp.nan, 0.0)
        return states.replace(
            params=jax.tree.map(
                lambda leaf: leaf + grey.reshape(-1, *[1] * (leaf.ndim - 1)), states.params
            )
        )

    def shoot(*given, real=results.shoot):
        pictures = real(*given)
        pictures[2] = 204
        return pictures

    command = arguments(tiny_prior_folder, "--seeds", "0:4", "--steps", 3, "--out", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "initial_states", begun)
        patch.setattr(results, "shoot", shoot)
        assert text3d.main(command) == LOST
    said = capsys.readouterr().err
    assert said.count("seed 1 diverged: its numbers are no longer finite after step 1") == 1
    assert f"seed 2: {GONE}; it is left out of the scores" in said
    (run,) = tmp_path.iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["lost"] == [1, 2]
    assert metrics["seeds"]["1"]["lost"].startswith("diverged")
    assert metrics["seeds"]["1"]["steps"] == 1 and metrics["seeds"]["2"]["lost"] == GONE
    assert [metrics["seeds"][seed]["diversity"] for seed in "12"] == [None, None]
    others = [metrics["seeds"][seed]["diversity"] for seed in "03"]
    np.testing.assert_allclose(metrics["diversity"], others)
    assert [path.name for path in sorted(run.glob("seed_*"))] == [
        "seed_0000",
        "seed_0002",
        "seed_0003",
    ]
    assert text3d.main(command) == LOST
    assert "is complete" in capsys.readouterr().out
    objects = load_objects_of(run)
    assert objects.seeds == [0, 2, 3] and objects.lost == {
        1: metrics["seeds"]["1"]["lost"], 2: GONE,
    }  # fmt: skip
    (run / "metrics.json").unlink()
    sheet = (run / "seeds.png").read_bytes()
    (run / "seeds.png").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "optimise", None)
        patch.setattr(results, "shoot", shoot)
        assert text3d.main(command) == LOST
    made = json.loads((run / "metrics.json").read_text())
    assert {k: made[k] for k in ("lost", "seeds")} == {k: metrics[k] for k in ("lost", "seeds")}
    assert (run / "seeds.png").read_bytes() == sheet


@pytest.mark.slow
def test_a_run_whose_numbers_are_no_longer_finite_is_no_success(
    text3d, tiny_prior_folder, tmp_path, capsys
):
    flags = ["--seeds", "0:2", "--steps", 9, "--grid-rate", "1e30", "--mlp-rate", "1e30"]
    command = arguments(tiny_prior_folder, *flags, "--mesh", "--out", tmp_path)
    assert text3d.main(command) == LOST
    said = capsys.readouterr().err
    for seed in (0, 1):
        assert said.count(f"seed {seed} diverged: its numbers are no longer finite after step") == 1
    (run,) = tmp_path.iterdir()
    assert not list(run.glob("seed_*"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["lost"] == [0, 1] and metrics["diversity"] is None
    assert metrics["seeds"]["1"]["lost"].startswith("diverged") and (run / "index.html").is_file()
    assert metrics["seeds"]["1"]["steps"] < 9
    assert text3d.main(command) == LOST
    assert "is complete" in capsys.readouterr().out
    assert len(load_objects_of(run)) == 0


@pytest.mark.slow
def test_of_several_prompts_the_overview_says_which_seeds_are_lost(
    text3d, tiny_prior_folder, tmp_path
):
    flags = ["--prompts", "a house", "red", "--seeds", 4, "--steps", 2, "--grid-rate", "1e30"]
    command = arguments(tiny_prior_folder, *flags, "--mlp-rate", "1e30", "--out", tmp_path)
    assert text3d.main(command) == LOST
    rows = json.loads((tmp_path / "overview.json").read_text())["runs"]
    assert [(row["state"], row["error"]) for row in rows] == [("complete", "lost seeds: 4")] * 2
