"""A scene is its field before its background."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.fields.base import completed
from dsd_jax.fields.radiance import HashGridField, Stage
from dsd_jax.rendering.cameras import orbit
from dsd_jax.rendering.scene import GREY, WHITE, Scene

pytestmark = pytest.mark.usefixtures("quick_compilation")
CAMERA = orbit(0.3, 0.2, 2.7, 0.7)
SMALL = {"height": 6, "width": 6, "samples_per_ray": 6}


@dataclass(frozen=True)
class Ball:
    """Of one density, which is the parameter, and five features; the stage is its radius."""

    def init(self, key):
        return 4.0 + jax.random.uniform(key)

    def apply(self, params, points, stage=1.0):
        inside = jnp.sum(points * points, -1) <= stage**2
        return params * inside, jnp.full((len(points), 5), jnp.array([0.9, 0.2, 0.1, 7.0, -7.0]))


def test_parameters_of_field_and_background_have_a_key_each():
    field = HashGridField(levels=2, log2_entries=8, width=8)
    scene, key = Scene(field, "colour"), jax.random.key(5)
    params = scene.init(key)
    theirs = field.init(jax.random.split(key)[0])
    for a, b in zip(*map(jax.tree.leaves, (params["field"], theirs)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(params["background"]) == {"logits"}
    assert Scene(field).init(key)["background"] == {}


def test_any_field_is_completed_and_the_scene_stays_hashable():
    scene = Scene(Ball(), "white")
    assert scene.field == completed(Ball()) and Scene(scene.field, "white") == scene
    assert hash(scene) == hash(Scene(Ball(), "white")) and scene != Scene(Ball())
    assert Scene(HashGridField()).field == HashGridField()


def test_albedo_is_the_first_three_features_before_the_background():
    scene = Scene(Ball(), "white")
    picture = scene.render({"field": jnp.float32(1e4), "background": {}}, CAMERA, **SMALL)
    np.testing.assert_allclose(picture.rgb[3, 3], [0.9, 0.2, 0.1], atol=1e-4)
    np.testing.assert_allclose(picture.rgb[0, 0], WHITE, atol=1e-6)
    plain = scene.render(
        {"field": jnp.float32(1e4), "background": {}}, CAMERA, plain_background=True, **SMALL
    )
    np.testing.assert_allclose(plain.rgb[0, 0], GREY, atol=1e-6)


def test_the_stage_reaches_the_field_and_none_is_all_of_it():
    scene = Scene(Ball())
    params, x = scene.init(jax.random.key(0)), jnp.array([[0.0, 0, 0], [0, 0.7, 0], [0, 0, 1.1]])
    for stage, inside in ((None, [1, 1, 0]), (0.5, [1, 0, 0])):
        density, _ = scene.field_fn(params, stage)(x)
        np.testing.assert_array_equal(density > 0, np.array(inside, bool))
    small, whole = (scene.render(params, CAMERA, stage=s, **SMALL).opacity for s in (0.3, None))
    assert float(small.sum()) < 0.5 * float(whole.sum())


def test_a_stage_of_a_hash_grid_may_be_traced():
    field = HashGridField(levels=3, log2_entries=8, width=8, start_levels=1, density_floor=2.0)
    scene = Scene(field)
    params = jax.tree.map(lambda leaf: leaf + 0.2, scene.init(jax.random.key(0)))
    draw = jax.jit(lambda stage: scene.render(params, CAMERA, stage=stage, **SMALL).rgb)
    whole = draw(None)
    np.testing.assert_allclose(draw(Stage(3.0, 1.0)), whole, atol=1e-6)
    assert np.abs(draw(Stage(1.0, 1.0)) - whole).max() > 1e-3
    assert np.abs(draw(Stage(3.0, 0.0)) - whole).max() > 1e-3
