"""Objects of a finished run, read from its folder."""

import dataclasses
import json
from dataclasses import dataclass

import jax
import numpy as np
import pytest

from dsd_jax.distillation import METHODS, Method, result
from dsd_jax.engine.generate import about, initial_states
from dsd_jax.engine.objects import Objects
from dsd_jax.engine.plan import make_plan
from dsd_jax.engine.results import recipe_config
from dsd_jax.engine.saved import load_objects_of, recipe_of
from dsd_jax.engine.task import make_task
from dsd_jax.files import write_json
from dsd_jax.recipe.presets import PRESETS, quick
from dsd_jax.recipe.recipe import changed, with_method


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_comes_back_from_json(name, tmp_path):
    write_json(tmp_path / "recipe.json", recipe_config(PRESETS[name]))
    assert recipe_of(json.loads((tmp_path / "recipe.json").read_text())) == PRESETS[name]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_comes_back_from_json(name):
    recipe = with_method(quick, name)
    assert recipe_of(json.loads(json.dumps(recipe_config(recipe)))) == recipe


@dataclass(frozen=True)
class Mine(Method):
    def gradient(self, key, denoiser_at, schedule, x, seed_noise, t, given=None):
        return result(x, x)


def test_a_method_of_one_s_own_must_be_given():
    config = recipe_config(dataclasses.replace(quick, method=Mine()))
    with pytest.raises(ValueError, match="its method Mine is not of dsd_jax; give the recipe"):
        recipe_of(config)


@pytest.fixture(scope="module")
def saved(prior, recipe, tmp_path_factory):
    """Seeds 9 and 3 at their start, in a folder."""
    recipe = changed(
        recipe, final_samples=8, turntable_frames=2, turntable_resolution=8, colour_std=1.0
    )
    task = make_task(prior, "a red house", recipe)
    states = jax.device_get(initial_states(task, [9, 3]))
    latest = {9: {"loss": 1.0}, 3: {"loss": 2.0}}
    objects = Objects(about(task), make_plan(task, [9, 3]), [([9, 3], states)], latest)
    return objects, objects.save(tmp_path_factory.mktemp("runs") / "red", meshes=False)


def test_what_is_saved_is_read_again(saved):
    objects, folder = saved
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "metrics.json", "seeds.png", "index.html", "manifest.json", "seed_0003",
        "seed_0009",
    }  # fmt: skip
    assert {path.name for path in (folder / "seed_0003").iterdir()} == {
        "field.json", "field.safetensors", "turntable.mp4", "views"
    }  # fmt: skip
    found = load_objects_of(folder)
    assert found.seeds == [3, 9] and found.recipe == objects.recipe
    assert found.config() == objects.config() | {"seeds": [3, 9]}
    off = np.abs(found.turntable().astype(int) - objects.turntable()[::-1])
    assert off.max() <= 1  # another occupancy grid
    scores = objects.scores()
    assert found.scores().run["diversity"] == pytest.approx(scores.run["diversity"], abs=1e-6)
    assert [one["loss"] for one in found.scores().seeds] == [2.0, 1.0]


def test_what_is_no_finished_run_is_refused_in_one_line(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist; give the folder"):
        load_objects_of(tmp_path)
    _, folder = saved
    config, metrics = ((folder / f"{name}.json").read_text() for name in ("config", "metrics"))
    (tmp_path / "metrics.json").write_text(metrics)
    (tmp_path / "config.json").write_text(config[:-9])
    with pytest.raises(ValueError, match=r"config\.json is damaged: "):
        load_objects_of(tmp_path)
    old = json.loads(config)
    old["settings"] = old.pop("recipe")
    write_json(tmp_path / "config.json", old)
    with pytest.raises(ValueError, match=r"config\.json is damaged: it does not say") as caught:
        load_objects_of(tmp_path)
    assert "\n" not in str(caught.value)
