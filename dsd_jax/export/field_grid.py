"""A field on a grid and in pictures: all that its mesh is made from and compared with.

Letters: g grid points along an axis of the box [-1, 1]^3 (x, y, z), v views, h w pixels, n points.
Density is optical thickness per unit length, as everywhere.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsd_jax.export.scenes import SavedScene
from dsd_jax.fields.given import GivenField, GivenShape
from dsd_jax.fields.solids import on_grid
from dsd_jax.fields.surface import SurfaceField
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.chunks import chunk_within
from dsd_jax.rendering.occupancy import OccupancyGrid, init
from dsd_jax.rendering.sampling import ray_ball
from dsd_jax.rendering.scene import GREY, Scene
from dsd_jax.rendering.volume import render

MAX_CELLS = 128
# log(1 + density) where a signed distance is 0.
_LEVEL = 5.0
# Held by a thread while it uses them: of several that make meshes, one compiles for all.
DEVICES = Lock()


class ExportedField(NamedTuple):
    """A field with its parameters. Seeds with the same `apply` share what is compiled.

    Attributes:
        apply: (params, points [n, 3]) -> (density [n], albedo [n, 3]), zero outside the unit ball.
        params: any pytree of arrays.
        cells: along an axis of [-1, 1]^3, at the field's own resolution.
        solid: whether `apply` also tells a signed distance, see `SceneField.distance`.
        shape: that was given.
    """

    apply: Callable[[Any, Array], tuple[Array, Array]]
    params: Any
    cells: int
    solid: bool = False
    shape: GivenShape | None = None


def field_of(saved: SavedScene) -> ExportedField:
    """A saved scene's field, at the stage of its final pictures."""
    scene, field = saved.scene, saved.scene.field
    solid = isinstance(field, GivenField)
    if isinstance(field, SurfaceField) and (saved.stage is None or saved.stage.width > 0):
        solid = True
        scene = dataclasses.replace(scene, field=dataclasses.replace(field, solid=True))
    cells = MAX_CELLS if solid else min(field.resolution_at(saved.stage), MAX_CELLS)
    given = saved.params, saved.stage
    return ExportedField(SceneField(scene), given, cells, solid, saved.shape)


class SceneField(NamedTuple):
    """`ExportedField.apply` of a scene; equal for equal scenes."""

    scene: Scene

    def __call__(self, params: Any, points: Array) -> tuple[Array, Array]:
        return self.scene.field_fn(*params)(points)

    def proposal(self, params: Any) -> Callable[[Array], Array] | None:
        """As `Field.proposal`."""
        return self.scene.field.proposal(params[0]["field"], params[1])

    def distance(self, params: Any, points: Array) -> Array:
        """Of a field that is a surface: the signed distance."""
        field: Any = self.scene.field
        return field.distance(params[0]["field"], points)


@partial(jax.jit, static_argnames=("apply", "cells", "solid"))
def _grid(apply, params, cells: int, solid: bool) -> Array:
    def value(points):
        return apply.distance(params, points) if solid else apply(params, points)[0]

    return on_grid(value, cells)


def density_grid(field: ExportedField) -> Float[np.ndarray, "g g g"]:
    """Density at the corners of the field's cells: where its finest level stores what it knows.

    Of a solid field one whose log(1 + density), of which isosurfaces are taken, is linear in the
    distance: 5 at the surface, and 1 less with every cell further out. What is seen of the field
    ends a little outside the surface.

    Raises ValueError where it is not finite.
    """
    with DEVICES:
        found = np.asarray(_grid(field.apply, field.params, field.cells, field.solid))
    if not np.isfinite(found).all():
        raise ValueError("the field's density is not finite: its optimisation diverged")
    if not field.solid:
        return found
    return np.expm1(np.clip(_LEVEL - found * field.cells / 2, 0, 2 * _LEVEL))


def occupancy_of(density: Float[np.ndarray, "g g g"]) -> OccupancyGrid:
    """The occupancy grid of `rendering.occupancy` with one cell for each of the grid's."""
    from scipy.ndimage import maximum_filter

    corner_max = maximum_filter(density, 2, origin=-1)[:-1, :-1, :-1]
    matter = -np.expm1(-corner_max * 2 / len(corner_max)) > 0.005
    return OccupancyGrid(jnp.asarray(corner_max), jnp.asarray(maximum_filter(matter, 3)))


@partial(jax.jit, static_argnames=("apply", "size", "samples"))
def _views(apply, params, occupancy, cameras, size: int, samples: int):
    proposal = apply.proposal(params) if isinstance(apply, SceneField) else None

    def view(camera):
        rendering = render(
            lambda points: apply(params, points), camera, None, height=size, width=size,
            samples_per_ray=samples, occupancy=occupancy, proposal=proposal, background=GREY,
            interval=ray_ball, chunk=chunk_within(2**14, size, size * samples), skip_empty=True,
        )  # fmt: skip
        return rendering.rgb, rendering.opacity

    return jax.lax.map(view, cameras)


def field_views(
    field: ExportedField,
    occupancy: OccupancyGrid,
    cameras: Camera,
    size: int = 128,
    samples: int = 64,
) -> tuple[Float[np.ndarray, "v h w 3"], Float[np.ndarray, "v h w"]]:
    """Colour before grey, and opacity, of the field from v cameras: size x size, no randomness."""
    with DEVICES:
        found = _views(field.apply, field.params, occupancy, cameras, size, samples)
        rgb, opacity = jax.device_get(found)
    return rgb, opacity


def compilations(
    field: ExportedField, cameras: Camera, size: int = 128, samples: int = 64
) -> list[Callable[[], Any]]:
    """What compiles `density_grid` and `field_views`. Of `field.params` only shapes matter."""
    grid, args = jax.eval_shape(partial(init, field.cells)), (field.apply, field.params)
    return [
        lambda: _grid.lower(*args, field.cells, field.solid).compile(),
        lambda: _views.lower(*args, grid, cameras, size, samples).compile(),
    ]
