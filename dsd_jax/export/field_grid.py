"""A field on a grid and in pictures: all that its mesh is made from and compared with.

Letters: g grid points along an axis of the box [-1, 1]^3 (x, y, z), v views, h w pixels, n points.
Density is optical thickness per unit length, as everywhere.
"""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsd_jax.export.scenes import SavedScene
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.occupancy import OccupancyGrid, init
from dsd_jax.rendering.sampling import ray_ball
from dsd_jax.rendering.scene import GREY, Scene
from dsd_jax.rendering.volume import chunk_within, render

MAX_CELLS = 128
# Held by a thread while it uses them: of several that make meshes, one compiles for all.
DEVICES = Lock()


class ExportedField(NamedTuple):
    """A field with its parameters. Seeds with the same `apply` share what is compiled.

    Attributes:
        apply: (params, points [n, 3]) -> (density [n], albedo [n, 3]), zero outside the unit ball.
        params: any pytree of arrays.
        cells: along an axis of [-1, 1]^3, at the field's own resolution.
    """

    apply: Callable[[Any, Array], tuple[Array, Array]]
    params: Any
    cells: int


def field_of(saved: SavedScene) -> ExportedField:
    """A saved scene's field, at the stage of its final pictures."""
    cells = min(saved.scene.field.resolution_at(saved.stage), MAX_CELLS)
    return ExportedField(SceneField(saved.scene), (saved.params, saved.stage), cells)


class SceneField(NamedTuple):
    """`ExportedField.apply` of a scene; equal for equal scenes."""

    scene: Scene

    def __call__(self, params: Any, points: Array) -> tuple[Array, Array]:
        return self.scene.field_fn(*params)(points)


@partial(jax.jit, static_argnames=("apply", "cells"))
def _density_grid(apply, params, cells: int) -> Array:
    axis = jnp.linspace(-1, 1, cells + 1)
    y, z = jnp.meshgrid(axis, axis, indexing="ij")

    def plane(x):
        points = jnp.stack([jnp.full_like(y, x), y, z], -1).reshape(-1, 3)
        return apply(params, points)[0].reshape(y.shape)

    return jax.lax.map(plane, axis)


def density_grid(field: ExportedField) -> Float[np.ndarray, "g g g"]:
    """Density at the corners of the field's cells: where its finest level stores what it knows.

    Raises ValueError where it is not finite.
    """
    with DEVICES:
        density = np.asarray(_density_grid(field.apply, field.params, field.cells))
    if not np.isfinite(density).all():
        raise ValueError("the field's density is not finite: its optimisation diverged")
    return density


def occupancy_of(density: Float[np.ndarray, "g g g"]) -> OccupancyGrid:
    """The occupancy grid of `rendering.occupancy` with one cell for each of the grid's."""
    from scipy.ndimage import maximum_filter

    corner_max = maximum_filter(density, 2, origin=-1)[:-1, :-1, :-1]
    matter = -np.expm1(-corner_max * 2 / len(corner_max)) > 0.005
    return OccupancyGrid(jnp.asarray(corner_max), jnp.asarray(maximum_filter(matter, 3)))


@partial(jax.jit, static_argnames=("apply", "size", "samples"))
def _views(apply, params, occupancy, cameras, size: int, samples: int):
    def view(camera):
        rendering = render(
            lambda points: apply(params, points), camera, None, height=size, width=size,
            samples_per_ray=samples, occupancy=occupancy, background=GREY, interval=ray_ball,
            chunk=chunk_within(2**14, size, size * samples), skip_empty=True,
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
        lambda: _density_grid.lower(*args, field.cells).compile(),
        lambda: _views.lower(*args, grid, cameras, size, samples).compile(),
    ]
