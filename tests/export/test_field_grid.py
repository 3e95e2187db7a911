"""What is exported of a saved scene."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.export.field_grid import MAX_CELLS, density_grid, field_of
from dsd_jax.export.scenes import SavedScene
from dsd_jax.fields.radiance import HashGridField, Stage
from dsd_jax.rendering.scene import Scene

pytestmark = pytest.mark.usefixtures("quick_compilation")
SCENE = Scene(HashGridField(levels=3, log2_entries=8, base_resolution=8, width=8, start_levels=1))


@dataclass(frozen=True)
class Cube:
    """Of density 3 where no coordinate exceeds a half."""

    resolution: int = 12

    def init(self, key):
        return jnp.zeros(())

    def apply(self, params, points):
        return 3.0 * (jnp.abs(points).max(-1) <= 0.5), jnp.full(points.shape, 0.5)


@pytest.mark.parametrize(("levels", "cells"), [(0.5, 8), (1.0, 8), (1.5, 12), (3.0, 18)])
def test_cells_are_those_of_the_finest_level_in_use(levels, cells):
    params = SCENE.init(jax.random.key(0))
    assert field_of(SavedScene(SCENE, params, Stage(levels, 1.0))).cells == cells
    assert field_of(SavedScene(SCENE, params, None)).cells == 18


def test_there_are_so_many_cells_at_most():
    fine = Scene(Cube(resolution=1000))
    assert field_of(SavedScene(fine, fine.init(jax.random.key(0)))).cells == MAX_CELLS


def test_the_stage_holds_in_what_is_exported():
    params = jax.tree.map(lambda leaf: leaf + 0.2, SCENE.init(jax.random.key(0)))
    for stage in (None, Stage(1.5, 1.0), Stage(3.0, 0.0)):
        saved = SavedScene(SCENE, params, stage)
        field, points = field_of(saved), jnp.array([[0.1, 0.2, -0.3], [0, 0, 0]])
        for a, b in zip(field.apply(field.params, points), saved.field_fn(points), strict=True):
            np.testing.assert_array_equal(a, b)
    assert field.apply == field_of(saved._replace(stage=None)).apply  # what is compiled is shared


def test_any_field_has_a_grid():
    scene = Scene(Cube())
    density = density_grid(field_of(SavedScene(scene, scene.init(jax.random.key(0)))))
    assert density.shape == (13, 13, 13)
    assert (density > 0).sum() == 7**3 and density.max() == 3.0
