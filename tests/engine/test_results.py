"""What metrics.json and config.json say."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from dsd_jax.distillation import DSD, Method, result
from dsd_jax.engine.generate import about, initial_states
from dsd_jax.engine.objects import Objects
from dsd_jax.engine.plan import make_plan
from dsd_jax.engine.results import recipe_config
from dsd_jax.engine.scoring import score, summary
from dsd_jax.fields.base import Field
from dsd_jax.files import write_json
from dsd_jax.metrics.scores import Scores
from dsd_jax.recipe.presets import quick
from dsd_jax.recipe.recipe import Recipe


def test_each_seed_gets_its_own_scores_and_steps(task):
    """In the order of the seeds, in which a resumed run's chunks need not be."""
    chunks = [
        ([seed], initial_states(task, [seed]).replace(step=np.array([step])))
        for seed, step in ((3, 8), (9, 12))
    ]
    plan = make_plan(task, [9, 3])
    objects = Objects(about(task), plan, chunks, {3: {"loss": 0.25}}, interrupted=2)
    scores = Scores({"diversity": 0.5}, [{"accepted": True}, {"accepted": False}])
    found = summary(objects, scores)
    assert found["diversity"] == 0.5 and found["interrupted"]
    assert found["seeds"] == {
        "9": {"steps": 12, "accepted": True},
        "3": {"steps": 8, "accepted": False, "loss": 0.25},
    }
    assert found["planned_memory_gb"]["in_all"] == round(plan.bytes_needed / 1e9, 6)
    lost = Objects(about(task)._replace(pictured=True), plan, chunks, {})
    with pytest.raises(ValueError, match="the picture that these objects were made from is not at"):
        score(lost, None)


def test_a_recipe_in_json(tmp_path):
    path = tmp_path / "config.json"
    write_json(path, recipe_config(quick))
    found = json.loads(path.read_text())
    assert found["steps"] == 320 and found["render"]["samples"] == 32
    assert found["method"]["name"] == "dsd" and found["method"]["eta_at"] is None
    assert found["field"]["kind"] == "hash_grid" and found["field"]["levels"] == 6


@dataclass(frozen=True)
class Mine(Method):
    strength: float = 0.5

    def gradient(self, key, denoiser_at, schedule, x, seed_noise, t, given=None):
        return result(x, x)


class Ball:
    """A field of one's own that is no dataclass."""

    def init(self, key): ...
    def apply(self, params, points): ...


@dataclass(frozen=True)
class Cells(Field):
    cells: int = 3

    def init(self, key): ...
    def apply(self, params, points, stage=None): ...


def test_methods_and_fields_of_one_s_own_in_json():
    found = recipe_config(Recipe(method=Mine(), field=Ball()))
    assert found["method"]["name"] == "Mine" and found["method"]["strength"] == 0.5
    assert found["field"]["kind"].endswith(":Ball")
    found = recipe_config(Recipe(method=DSD(), field=Cells(5)))
    assert found["field"]["kind"].endswith(":Cells") and found["field"]["cells"] == 5
