"""What meshes need compiled, so that it can be done before there is anything to make them of."""

from collections.abc import Callable
from typing import Any

from dsd_jax.export import field_grid, isosurface, texture
from dsd_jax.export.mesh import MeshSettings
from dsd_jax.rendering.cameras import Camera


def compilations(
    field: field_grid.ExportedField, cameras: Camera, settings: MeshSettings
) -> list[Callable[[], Any]]:
    """Functions that compile, each, a program which `make_mesh` runs on a device.

    Of `field.params` only shapes matter. How many vertices and texels there will be is a guess:
    half as many as faces, and half of the texture.
    """
    points = [settings.faces // 2]
    if not settings.vertex_colours:
        points.append(settings.texture_size**2 // 2)
    several = settings.closing is None and not field.solid
    grids = len(isosurface.CLOSINGS) if several else 1
    return [
        *field_grid.compilations(field, cameras, settings.view_size, settings.samples),
        *isosurface.compilations(field.cells, cameras, settings.view_size, grids),
        *texture.compilations(field, points),
    ]
