"""Where the methods end on a mixture that is known exactly, and experiments/mixture.py."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dsd_jax.cli import mixture as program
from dsd_jax.distillation import METHODS
from dsd_jax.engine.lost import LOST
from dsd_jax.export.inline import figure_png
from dsd_jax.recipe.recipe import changed
from dsd_jax.studies import mixture
from dsd_jax.studies.mixture import RECIPE

SEEDS = range(1000)
FEWER = changed(RECIPE, steps=200, grid_rate=0.025)
every_method = pytest.mark.parametrize("name", METHODS)
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def plane(quick_compilation):
    return mixture.six_modes()


@pytest.fixture(scope="module")
def exact(plane):
    return mixture.ddim(plane, SEEDS)[:, -1]


def scores(plane, exact, name, changes=None, **how):
    recipe = changed(mixture.recipe_by(FEWER, name), **(changes or {}))
    ends = mixture.optimise(plane, recipe, SEEDS[: len(exact)], **how)[:, -1]
    return mixture.scores(plane, ends, exact)


def test_the_prompt_has_six_modes_around_0_and_the_ode_samples_them_by_weight(plane, exact):
    weights = np.exp(plane.prior.log_weights) * np.isfinite(plane.text)
    np.testing.assert_allclose(weights @ np.asarray(plane.prior.mean), 0, atol=1e-6)
    shares = np.bincount(mixture.nearest(plane, exact), minlength=8) / len(exact)
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.04)
    found = mixture.scores(plane, exact, exact)
    assert found["same_mode"] == 1 and found["to_ode"] == 0
    assert found["any_mode"] == pytest.approx(1 - np.exp(-4.5), abs=0.01)  # 3 deviations in 2D


def test_dsd_star_is_ddim(plane):
    """50 steps, float32, 1,000 seeds, those near a border between two modes included."""
    followed, sampled = mixture.follow(plane, SEEDS, 50), mixture.ddim(plane, SEEDS, 50)
    assert followed.dtype == jnp.float32
    np.testing.assert_allclose(followed, sampled, atol=1e-4)


@pytest.mark.parametrize("points", [50, 150])
def test_dsd_star_ends_in_the_mode_of_the_exact_ode(plane, exact, points):
    found = mixture.scores(plane, mixture.follow(plane, SEEDS, points)[:, -1], exact)
    assert found["same_mode"] >= 0.99 and found["any_mode"] >= 0.98


def test_dsd_ends_in_the_mode_of_the_exact_ode(plane, exact):
    """The form that 3D uses, with t' and an interpolated point."""
    found = scores(plane, exact, "dsd")
    assert found["same_mode"] >= 0.95 and found["any_mode"] >= 0.95
    assert found["modes"] == pytest.approx(mixture.scores(plane, exact, exact)["modes"], rel=0.02)


def test_where_the_rivals_end(plane, exact):
    """FSD keeps to most seeds' modes, SDS to none: fewer modes by Adam, and chance by whole steps.

    Chance is sum_k pi_k^2 = 0.175 at equal shares of the modes.
    """
    fsd = scores(plane, exact, "fsd")["same_mode"]
    sds = scores(plane, exact, "sds")["same_mode"]
    assert 0.7 < fsd < 0.9 and 0.1 < sds < 0.25
    collapsed = scores(plane, exact, "sds", way="Adam")
    assert collapsed["modes"] < 1.5 and collapsed["any_mode"] > 0.9


def test_adam_keeps_the_seed_where_it_keeps_the_size(plane, exact):
    """Adam as in 3D loses a quarter of the seeds' modes, and with an epsilon above the size few."""
    plain = scores(plane, exact, "dsd", way="Adam")["same_mode"]
    sized = scores(plane, exact, "dsd", way="Adam with size")
    assert plain < 0.8 and sized["same_mode"] > 0.93 and sized["any_mode"] > 0.93


def test_adam_keeps_the_seed_where_the_ode_leads(plane, exact):
    """As long as t falls: the point is drawn to its ODE, so that what Adam does to sizes heals."""
    led = scores(plane, exact, "dsd", {"method.lead_until": FEWER.optimise.t_min}, way="Adam")
    assert led["same_mode"] > 0.93 and led["any_mode"] > 0.95


@every_method
def test_every_method_moves_every_seed_by_itself(plane, name):
    recipe = mixture.recipe_by(changed(RECIPE, steps=4), name)
    found = mixture.optimise(plane, recipe, [3, 7])
    assert found.shape == (2, 4, 2) and np.isfinite(found).all() and np.ptp(found[0], 0).min() > 0
    shifted = mixture.optimise(plane, recipe, [7, 9])
    np.testing.assert_allclose(found[1], shifted[0], rtol=1e-4, atol=1e-4)


def test_scores_of_points_with_a_known_answer(plane):
    mean = plane.prior.mean
    exact = mean[jnp.array([0, 0, 1, 2])]
    x = jnp.stack([mean[0], mean[1], mean[1] + jnp.array([0.0, 10.0]), mean[6]])
    found = mixture.scores(plane, x, exact)
    assert found["same_mode"] == 0.5 and found["any_mode"] == 0.5  # 6 is no mode of the prompt
    assert found["modes"] == pytest.approx(np.exp(1.5 * np.log(2)))  # shares 1/4, 1/2, 1/4
    assert found["to_mode"] == pytest.approx(2.5, abs=1e-5)
    steps = [0, np.linalg.norm(mean[1] - mean[0]), 10, np.linalg.norm(mean[6] - mean[2])]
    assert found["to_ode"] == pytest.approx(np.mean(steps), rel=1e-5)


def test_the_figure_has_a_panel_a_method_and_counts_what_is_outside(plane, exact):
    ends = mixture.follow(plane, range(5), 50)
    figure = mixture.draw(plane, {"dsd*": ends, "away": ends + 9}, exact[:5], columns=2)
    shown, away = figure.axes
    assert shown.get_title() == "dsd*: 100%" and [t.get_text() for t in away.texts] == ["5 outside"]
    assert not shown.texts and shown.get_aspect() == away.get_aspect() == 1
    assert len(shown.patches) == 8 and len(shown.collections[0].get_paths()) == 5
    file = figure_png(figure)
    assert file.startswith(b"\x89PNG") and len(file) < 50_000


def test_the_program_writes_tables_scores_and_figures(tmp_path, capsys):
    flags = ["--methods", "dsd,sds", "--steps", "5", "--seeds", "0:20", "--out", str(tmp_path)]
    assert program.main(flags) == 0
    said = capsys.readouterr().out
    pictures = {"whole_steps.png", "adam.png", "adam_with_size.png"}
    assert {path.name for path in tmp_path.iterdir()} == pictures | {"table.md", "scores.json"}
    report = json.loads((tmp_path / "scores.json").read_text())
    assert report["max_abs_difference_to_ddim"] < 1e-4 and report["recipe"]["steps"] == 5
    rows = {"exact ODE", "dsd*", "dsd", "dsd, trajectory", "dsd, led", "sds"}
    ways = [set(report[name]) for name in ("whole steps", "Adam", "Adam with size")]
    assert ways == [rows] * 3
    table = (tmp_path / "table.md").read_text()
    assert table in said and table.count("| method | same mode | any mode |") == 3
    assert "| exact ODE | 100.0% |" in table
    for name in pictures:
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 1000 and np.asarray(picture).std() > 0


def test_points_that_are_not_finite_are_no_success(tmp_path, capsys):
    """A number that is finite, but not what becomes of it."""
    flags = ["--methods", "sds", "--steps", "5", "--seeds", "0:4", "--out", str(tmp_path)]
    assert program.main([*flags, "--guidance-scale", "1e38"]) == LOST
    lines = capsys.readouterr().err.splitlines()
    for row in ("exact ODE", "dsd*", "whole steps: sds", "Adam: sds"):
        assert f"error: {row}: 4 of 4 points are not finite" in lines
    rows = json.loads((tmp_path / "scores.json").read_text())["Adam"]
    assert {row["same_mode"] for row in rows.values()} == {0}
    assert {row["to_mode"] for row in rows.values()} == {None}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "dsd,sdds"], "--methods 'sdds' is not one of"),
        (["--methods", "dsd,sds,dsd"], "--methods: dsd comes twice"),
        (["--methods", ""], "--methods '' names nothing"),
        (["--rate", "inf"], "--rate must be a positive, finite number, not inf"),
        (["--guidance-scale", "1e300"], "--method.guidance-scale must be a finite number"),
        (["--seeds", "4:2"], "is an empty range"),
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--ddim-steps", "1"], "--ddim-steps must be from 2 to 100000, not 1"),
        (["--steps", "1000000000"], "1000 seeds of 1000000000 steps need about 280000.00 GB"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, capsys, flags, message):
    assert program.main([*flags, "--out", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
