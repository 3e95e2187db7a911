"""Saved objects."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import dsd_jax
from dsd_jax.export.scenes import SavedScene, load_scene, optimised_of, save_scene
from dsd_jax.fields.radiance import HashGridField, Stage
from dsd_jax.rendering.cameras import orbit
from dsd_jax.rendering.scene import GREY, Scene


@pytest.fixture
def saved():
    field = HashGridField(levels=2, log2_entries=8, width=8, density_floor=0.25, start_levels=1)
    scene = Scene(field, "directional")
    return SavedScene(scene, scene.init(jax.random.key(0)), Stage(1.5, 1.0))


def test_loaded_scene_renders_as_the_saved_one(saved, tmp_path):
    save_scene(tmp_path, saved)
    loaded = load_scene(tmp_path)
    assert loaded.scene == saved.scene
    assert loaded.stage == Stage(1.5, 1.0)
    assert loaded.scene.field.density_floor == 0.25
    camera = orbit(0.3, 0.2, 2.7, 0.7)
    size = {"height": 6, "width": 6, "samples_per_ray": 4}
    ours, theirs = (s.render(camera, **size).rgb for s in (loaded, saved))
    np.testing.assert_array_equal(ours, theirs)
    assert float(np.std(ours)) > 0.01


@pytest.mark.parametrize("cells", [None, 8, 9])
def test_where_it_is_sampled_and_what_is_known_of_it_come_back(saved, tmp_path, cells):
    occupied = None if cells is None else np.random.default_rng(0).random((cells,) * 3) < 0.4
    save_scene(tmp_path, saved._replace(occupied=occupied), {"steps": 7, "loss": 0.1})
    assert optimised_of(tmp_path) == {"steps": 7, "loss": 0.1}
    loaded = load_scene(tmp_path)
    np.testing.assert_array_equal(loaded.occupied, occupied)
    assert jax.tree.structure(loaded.params) == jax.tree.structure(saved.params)


def test_a_flipped_byte_is_found(saved, tmp_path):
    save_scene(tmp_path, saved)
    weights = tmp_path / "field.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"field.safetensors is damaged: its numbers are not"):
        load_scene(tmp_path)


def test_plain_background_hides_a_learned_one(saved):
    params = jax.tree.map(lambda leaf: leaf + 1.0, saved.params)
    saved = saved._replace(params=params)
    camera = orbit(0.3, 0.2, 2.7, 0.7)
    size = {"height": 9, "width": 9, "samples_per_ray": 4}
    assert abs(float(saved.render(camera, **size).rgb[0, 0, 0]) - GREY) > 0.02
    plain = saved.render(camera, plain_background=True, **size).rgb[0, 0]
    np.testing.assert_allclose(plain, GREY, atol=1e-6)


def test_the_description_says_kind_numbers_and_stage(saved, tmp_path):
    save_scene(tmp_path, saved)
    description = json.loads((tmp_path / "field.json").read_text())
    assert set(description) == {
        "version", "kind", "field", "background", "stage", "sha256", "optimised"
    }  # fmt: skip
    assert description["version"] == dsd_jax.__version__ and description["kind"] == "hash_grid"
    assert description["field"] == dataclasses.asdict(saved.scene.field)
    assert description["stage"] == {"open_levels": 1.5, "floor_part": 1.0}
    for stage in (Stage(None, 1.0), None):
        field = dataclasses.replace(saved.scene.field, start_levels=2)
        scene = Scene(field, "directional")
        save_scene(tmp_path, SavedScene(scene, saved.params, stage))
        assert load_scene(tmp_path).stage == stage


def test_a_field_may_be_given_and_must_be_the_same(saved, tmp_path):
    save_scene(tmp_path, saved)
    field = saved.scene.field
    assert load_scene(tmp_path, field).scene == saved.scene
    with pytest.raises(ValueError, match=r"is of another field: .*'levels_until': 0\.5"):
        load_scene(tmp_path, dataclasses.replace(field, levels_until=0.75))


def test_a_field_of_an_older_version_is_refused_in_one_line(saved, tmp_path):
    save_scene(tmp_path, saved)
    old = {"background": "grey", "field": {"levels": 2}, "open_levels": None}
    (tmp_path / "field.json").write_text(json.dumps(old))
    for field in (None, saved.scene.field):
        with pytest.raises(ValueError) as refused:
            load_scene(tmp_path, field)
        path = tmp_path / "field.json"
        message = f"{path} is of an older version of dsd_jax; make the object again"
        assert str(refused.value) == message


@pytest.mark.parametrize(
    ("part", "value"),
    [("kind", "mist"), ("field", {"levls": 2}), ("field", {"levels": 0}), ("field", None),
     ("stage", {"open_levels": 1.5}), ("stage", {"open_levels": "x", "floor_part": 1}),
     ("stage", "late"), ("background", {}), ("background", "pink"), ("background", None)],
)  # fmt: skip
def test_what_cannot_be_read_is_said_to_be_no_field(saved, tmp_path, part, value):
    save_scene(tmp_path, saved)
    description = json.loads((tmp_path / "field.json").read_text()) | {part: value}
    (tmp_path / "field.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"field\.json is damaged: ") as refused:
        load_scene(tmp_path)
    assert len(str(refused.value).splitlines()) == 1


def test_bad_folders_are_refused_in_one_line(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"field\.json does not exist"):
        load_scene(tmp_path)
    save_scene(tmp_path, saved)
    description = json.loads((tmp_path / "field.json").read_text())
    description["field"]["levels"] = 3
    (tmp_path / "field.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"'field/Dense_0/kernel' is float32\[4, 8\]"):
        load_scene(tmp_path)
    for broken in ("{}", "[1]", "{"):
        (tmp_path / "field.json").write_text(broken)
        with pytest.raises(ValueError, match=r"field\.json is damaged: "):
            load_scene(tmp_path)
