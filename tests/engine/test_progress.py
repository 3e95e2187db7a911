"""How far a run is, where there is no terminal."""

import re

import numpy as np
import pytest

from dsd_jax.engine import progress
from dsd_jax.engine.loop import Progress
from dsd_jax.engine.plan import make_plan
from dsd_jax.engine.progress import Bar
from dsd_jax.recipe.recipe import changed


@pytest.fixture
def clock(monkeypatch):
    """Seconds that have passed, in a list of one."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def after(done, seconds_per_step=0.5):
    return Progress(None, done, {"loss": np.array([1.0, 2.0])}, seconds_per_step)


def test_a_plain_line_now_and_then_and_at_the_end(task, clock, capfd):
    with Bar(make_plan(task, [0, 1]), task.recipe) as bar:
        chunk = [0, 1]
        bar.on_phase(None)
        for seconds, done in ((1, 1), (5, 8), (11, 20), (12, 30), (13, 40)):
            clock[0] = seconds
            bar.on_block(chunk, after(done))
        assert bar.steps_per_second == 2.0
        one_more = bar.count("rendering", 2)
        for seconds in (14, 15):
            clock[0] = seconds
            one_more()
    said = capfd.readouterr().err.splitlines()
    assert said == [
        "optimising: 20 of 40, loss 1.5, 2.00 it/s, 11 s",
        "optimising: 40 of 40, loss 1.5, 2.00 it/s, 13 s",
        "rendering: 2 of 2, 15 s",
    ]


def test_chunks_and_rounds_are_named(task, clock, capfd):
    recipe = changed(task.recipe, rounds=2, fit_steps=10)
    plan = make_plan(task, [0, 1])._replace(chunks=[[0], [1]])
    with Bar(plan, recipe) as bar:
        for chunk, done in (([0], 40), ([0], 55), ([1], 41)):
            clock[0] += 20
            bar.on_block(chunk, after(done))
    said = [re.sub(", loss.*", "", line) for line in capfd.readouterr().err.splitlines()]
    assert said == [
        "optimising chunk 1 of 2: 40 of 120",
        "refining, round 2 of 2 chunk 1 of 2: 55 of 120",
        "refining, round 1 of 2 chunk 2 of 2: 101 of 120",
    ]


def test_a_hidden_bar_says_nothing(task, clock, capfd):
    with Bar(make_plan(task, [0]), task.recipe, hidden=True) as bar:
        clock[0] = 60
        bar.on_block([0], after(40))
        bar.say("here")
    assert capfd.readouterr() == ("", "")
