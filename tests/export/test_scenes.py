"""Saved objects."""

import json

import jax
import numpy as np
import pytest

from dsd_jax.export.scenes import SavedScene, load_scene, save_scene
from dsd_jax.fields.radiance import RadianceField, truncated_exp
from dsd_jax.rendering.cameras import orbit
from dsd_jax.rendering.scene import GREY, Scene


@pytest.fixture
def saved():
    field = RadianceField(levels=2, log2_entries=8, width=8, density_activation=truncated_exp,
                          density_floor=0.25)  # fmt: skip
    scene = Scene(field, "directional")
    return SavedScene(scene, scene.init(jax.random.key(0)), 1.5)


def test_loaded_scene_renders_as_the_saved_one(saved, tmp_path):
    save_scene(tmp_path, saved)
    loaded = load_scene(tmp_path)
    assert loaded.scene == saved.scene
    assert loaded.open_levels == 1.5
    assert loaded.scene.field.density_floor == 0.25
    camera = orbit(0.3, 0.2, 2.7, 0.7)
    size = {"height": 6, "width": 6, "samples_per_ray": 4}
    ours, theirs = (s.render(camera, **size).rgb for s in (loaded, saved))
    np.testing.assert_array_equal(ours, theirs)
    assert float(np.std(ours)) > 0.01


def test_plain_background_hides_a_learned_one(saved):
    params = jax.tree.map(lambda leaf: leaf + 1.0, saved.params)
    saved = saved._replace(params=params)
    camera = orbit(0.3, 0.2, 2.7, 0.7)
    size = {"height": 9, "width": 9, "samples_per_ray": 4}
    assert abs(float(saved.render(camera, **size).rgb[0, 0, 0]) - GREY) > 0.02
    plain = saved.render(camera, plain_background=True, **size).rgb[0, 0]
    np.testing.assert_allclose(plain, GREY, atol=1e-6)


def test_bad_folders_are_refused_in_one_line(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"field\.json does not exist"):
        load_scene(tmp_path)
    save_scene(tmp_path, saved)
    description = json.loads((tmp_path / "field.json").read_text())
    description["field"]["levels"] = 3
    (tmp_path / "field.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"'field/Dense_0/kernel' is float32\[4, 8\]"):
        load_scene(tmp_path)
    (tmp_path / "field.json").write_text("{}")
    with pytest.raises(ValueError, match="does not describe a field"):
        load_scene(tmp_path)
