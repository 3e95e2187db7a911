"""The field whose matter is the inside of a surface."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.export.field_grid import field_of
from dsd_jax.export.scenes import SavedScene, load_scene, save_scene
from dsd_jax.fields.base import Field
from dsd_jax.fields.radiance import HashGridField
from dsd_jax.fields.surface import SurfaceField, SurfaceStage, laplace_density
from dsd_jax.rendering.scene import Scene

ALONG = np.linspace(0.0, 0.8, 9)


@dataclass(frozen=True)
class Ball(Field):
    """Dense within a radius, which is its parameter, but for a hollow; of one colour."""

    hollow: float = 0.1

    def init(self, key):
        return jnp.asarray(0.4)

    def apply(self, params, points, stage=None):
        away = jnp.linalg.norm(points, axis=-1)
        inside = (away < params) & (away > self.hollow)
        return jnp.where(inside, 30.0, 0.0), jnp.full((len(points), 3), 0.25)


FIELD = SurfaceField(
    Ball(), levels=3, log2_entries=12, base_resolution=6, hidden_width=16, cells=24,
    settle_steps=120,
)  # fmt: skip


@pytest.fixture(scope="module")
def settled():
    params = FIELD.init(jax.random.key(0))
    return jax.jit(lambda key: FIELD.settled(key, params, None))(jax.random.key(1))


def on_axis(distances):
    return jnp.asarray(np.stack([distances, 0 * distances, 0 * distances], -1), jnp.float32)


def test_density_is_the_laplace_distributions():
    """At the surface half of 1 / width; a width outside it 1 / 2e of it; deep inside all of it."""
    found = laplace_density(jnp.asarray([0.0, 0.1, -0.1, -9.0, 9.0]), 0.1)
    tail = 0.5 * np.exp(-1)
    np.testing.assert_allclose(found, [5, 10 * tail, 10 * (1 - tail), 10, 0], rtol=1e-5)


def test_it_starts_as_a_sphere():
    params = FIELD.init(jax.random.key(3))
    np.testing.assert_allclose(FIELD.distance(params, on_axis(ALONG)), ALONG - 0.5, atol=0.05)


def test_it_settles_to_what_is_dense_and_fills_its_hollow(settled):
    cell = 2 / FIELD.cells
    found = np.asarray(FIELD.distance(settled, on_axis(ALONG)))
    np.testing.assert_allclose(found, ALONG - 0.4, atol=1.2 * cell)
    assert (found[:4] < 0).all() and (found[5:] > 0).all()


def test_of_nothing_it_stays_the_sphere():
    params = FIELD.init(jax.random.key(0))
    params = {**params, "base": jnp.asarray(0.0)}
    found = jax.jit(lambda key: FIELD.settled(key, params, None))(jax.random.key(1))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, params))


def test_until_it_is_solid_it_is_its_base(settled):
    points = on_axis(ALONG)
    base, colours = Ball().apply(settled["base"], points)
    rough, solid = FIELD.stage(1.0, final=True), FIELD.stage(1.5)
    np.testing.assert_array_equal(FIELD.apply(settled, points, rough)[0], base)
    for known, stage in ((False, rough), (True, solid)):
        told = dataclasses.replace(FIELD, solid=known)
        mine, theirs = told.apply(settled, points, stage), FIELD.apply(settled, points, stage)
        np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-6)
        np.testing.assert_array_equal(mine[1], colours)
    distance = FIELD.distance(settled, points)
    np.testing.assert_allclose(
        FIELD.apply(settled, points, solid)[0], laplace_density(distance, solid.width), rtol=1e-5
    )
    assert FIELD.apply(settled, jnp.full((1, 3), 0.7), SurfaceStage(None, 5.0))[0] == 0.0


def test_its_width_shrinks_in_the_refinement():
    widths = [float(FIELD.stage(p).width) for p in (0.0, 1.0, 1.001, 1.5, 2.0)]
    middle = np.sqrt(FIELD.width_first * FIELD.width_last)
    assert widths == pytest.approx([0, 0, FIELD.width_first, middle, FIELD.width_last], rel=0.01)


def test_the_penalty_is_that_of_a_sphere(settled):
    """The distance to a sphere has gradients of length 1 and the curvature 2 / r."""
    exact = dataclasses.replace(FIELD, eikonal=1.0, curvature=0.0)
    points = jax.random.normal(jax.random.key(0), (64, 3))
    points = 0.5 * points / jnp.linalg.norm(points, axis=-1, keepdims=True)
    params = FIELD.init(jax.random.key(0))
    params = jax.tree.map(jnp.zeros_like, params)
    assert float(exact.penalty(params, points)) < 1e-3
    folds = dataclasses.replace(FIELD, eikonal=0.0, curvature=1.0)
    assert float(folds.penalty(params, points)) == pytest.approx(2 / 0.5, rel=0.05)
    assert float(exact.penalty(settled, points)) < 0.2


def test_parameters_have_groups(settled):
    groups = FIELD.parameter_groups(settled)
    assert jax.tree.structure(groups) == jax.tree.structure(settled)
    assert {*jax.tree.leaves(groups["distance"])} == {"grid", "mlp"}


def test_it_comes_back_from_disk_with_what_it_wraps(tmp_path):
    field = SurfaceField(HashGridField(levels=2, log2_entries=8), levels=2, log2_entries=8)
    scene = Scene(field)
    stage = jax.tree.map(float, field.stage(1.5, final=True))
    save_scene(tmp_path, SavedScene(scene, scene.init(jax.random.key(0)), stage))
    for loaded in (load_scene(tmp_path), load_scene(tmp_path, field)):
        assert loaded.scene == scene and loaded.stage == stage
        exported = field_of(loaded)
        assert exported.solid and exported.apply.proposal(exported.params) is not None
    with pytest.raises(ValueError, match="is of another field: surface, not hash_grid"):
        load_scene(tmp_path, field.base)
