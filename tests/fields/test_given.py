"""The field whose shape is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.export.scenes import SavedScene, describe_field, field_like, load_scene, save_scene
from dsd_jax.fields.given import GivenField, GivenShape
from dsd_jax.fields.radiance import HashGridField
from dsd_jax.fields.solids import on_grid
from dsd_jax.recipe import presets
from dsd_jax.recipe.recipe import changed
from dsd_jax.recipe.state import init_state, optimiser
from dsd_jax.rendering.scene import Scene

CELLS = 16
FIELD = GivenField(HashGridField(levels=2, log2_entries=8, width=8, start_levels=2), CELLS, 0.01)


@pytest.fixture(scope="module")
def ball() -> GivenShape:
    """Of radius 1/2; its triangle is no matter here."""
    distance = on_grid(lambda points: jnp.linalg.norm(points, axis=-1) - 0.5, CELLS)
    vertices, faces = np.eye(3, dtype=np.float32), np.array([[0, 1, 2]])
    return GivenShape(np.asarray(distance), vertices, faces, 2.0, np.array([0.0, 1.0, 0.0]))


@pytest.fixture(scope="module")
def params(ball):
    return FIELD.holding(FIELD.init(jax.random.key(0)), ball.distance)


def test_matter_is_inside_the_shape_and_colours_are_the_base_s(params):
    points = jnp.asarray([[0.0, 0, 0], [0.375, 0, 0], [0, 0.625, 0], [0, 0, 1.5]])
    density, features = FIELD.apply(params, points)
    np.testing.assert_allclose(density, [100, 100, 0, 0], atol=0.1)
    np.testing.assert_array_equal(features, FIELD.base.apply(params["base"], points)[1])
    beside = FIELD.proposal(params)(jnp.asarray([[0.0, 0.52, 0]]))  # where a sample may be the last
    assert float(beside[0]) > 1 and FIELD.proposal(params)(points)[3] == 0
    assert FIELD.distance(params, points[1:2])[0] == pytest.approx(-0.125, abs=1e-6)


def test_a_step_changes_colours_alone(ball):
    """Though its gradient be large: nothing is differentiated by the distance."""
    small = changed(presets.draft, levels=2, log2_entries=8, width=8, start_levels=2)
    recipe = presets.of_shape(small, CELLS)
    assert presets.of_shape(recipe) == recipe and not recipe.becomes_surface
    state = init_state(0, (2, 2, 1), recipe, shape=ball.distance)

    def loss(params):
        density, features = recipe.scene.field_fn(params)(jnp.full((4, 3), 0.2))
        return jnp.sum(density) + jnp.sum(features)

    grads = jax.grad(loss)(state.params)
    assert not np.any(grads["field"]["distance"])
    grads["field"]["distance"] += 1.0
    updates, _ = optimiser(recipe).update(grads, state.opt_state, state.params)
    assert not np.any(updates["field"]["distance"])
    assert any(np.any(leaf) for leaf in jax.tree.leaves(updates["field"]["base"]))


def test_it_is_the_same_from_disk(params, ball, tmp_path):
    """Distances near the surface to 16 bits; the triangles, and where they come from, whole."""
    scene = Scene(FIELD)
    save_scene(tmp_path, SavedScene(scene, {"field": params, "background": {}}, None, ball))
    found = load_scene(tmp_path)
    assert found.scene == scene and found.shape is not None
    near = np.abs(ball.distance) < 0.5
    stored = np.asarray(found.params["field"]["distance"])
    np.testing.assert_allclose(stored[near], ball.distance[near], atol=1e-3)
    np.testing.assert_array_equal(np.sign(stored), np.sign(ball.distance))
    np.testing.assert_array_equal(found.shape.vertices, ball.vertices)
    assert found.shape.scale == 2 and found.shape.origin.tolist() == [0, 1, 0]
    described = describe_field(FIELD)
    assert field_like(described["kind"], described["field"]) == FIELD
    (tmp_path / "shape.npz").write_bytes(b"no shape")
    with pytest.raises(ValueError, match=r"shape\.npz is not a readable shape"):
        load_scene(tmp_path)
    (tmp_path / "shape.npz").unlink()
    with pytest.raises(FileNotFoundError, match="shape"):
        load_scene(tmp_path)
