"""Colours of a surface, from the albedo of the field around it: at vertices, or in an atlas.

Letters: n vertices, f faces, m points or texels, s samples along a normal, h w texels.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from dsd_jax.export.charts import Atlas
from dsd_jax.export.field_grid import DEVICES, ExportedField
from dsd_jax.export.pictures import to_uint8
from dsd_jax.export.raster import rasterise
from dsd_jax.rendering.volume import absorption

# Where along the normal colours are gathered, in cells of the field: from outside to inside.
_OUTSIDE, _INSIDE, _STEPS = 1.5, 4.5, 15
_BLOCK = 2**14
# Where less than this part of a ray is lost there, the field says nothing about colour.
_FAINT = 0.1


def bake(
    field: ExportedField,
    vertices: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    atlas: Atlas,
    size: int,
) -> UInt8[np.ndarray, "h w 3"]:
    """Texture of an atlas; texels outside the charts repeat the nearest one inside.

    Args:
        vertices, normals: of the uncut surface, in world coordinates.
    """
    from scipy.ndimage import distance_transform_edt

    found = rasterise(atlas.uv[atlas.faces] * size, size, size)
    corners = atlas.source[atlas.faces[found.face]]
    points = np.einsum("mk,mki->mi", found.weights, vertices[corners])
    towards = np.einsum("mk,mki->mi", found.weights, normals[corners])
    texture = np.zeros((size * size, 3), np.float32)
    texture[found.pixel] = surface_albedo(field, points, towards)
    empty = np.ones(size * size, bool)
    empty[found.pixel] = False
    nearest = distance_transform_edt(
        empty.reshape(size, size), return_distances=False, return_indices=True
    )
    return to_uint8(texture.reshape(size, size, 3)[tuple(np.asarray(nearest))])


def surface_albedo(
    field: ExportedField, points: Float[np.ndarray, "m 3"], normals: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "m 3"]:
    """What one sees of the field looking straight at the surface, sRGB in [0, 1].

    The albedo from a little outside to a little inside, each sample weighted by what it absorbs.
    Where there is next to nothing (a closed pore) it is the colour of the nearest point with some.
    """
    from scipy.spatial import KDTree

    blocks = _blocks(len(points))
    pad = ((0, blocks * _BLOCK - len(points)), (0, 0))
    lines = [np.pad(x, pad).astype(np.float32).reshape(blocks, -1, 3) for x in (points, normals)]
    with DEVICES:
        found = jax.device_get(_gather(field.apply, field.params, *lines, 2 / field.cells))
    colours, opacity = (np.array(x).reshape(blocks * _BLOCK, -1)[: len(points)] for x in found)
    faint = opacity[:, 0] < _FAINT
    if faint.all():
        return colours
    nearest = KDTree(points[~faint]).query(points[faint])[1]
    colours[faint] = colours[~faint][nearest]
    return colours


def compilations(field: ExportedField, points: Sequence[int]) -> list[Callable[[], Any]]:
    """What compiles `surface_albedo` of so many points. Of `field.params` only shapes matter."""

    def one(blocks: int) -> Callable[[], Any]:
        lines = jax.ShapeDtypeStruct((blocks, _BLOCK, 3), jnp.float32)
        args = field.apply, field.params, lines, lines, 2 / field.cells
        return lambda: _gather.lower(*args).compile()

    return [one(blocks) for blocks in sorted({_blocks(n) for n in points})]


def _blocks(points: int) -> int:
    """How many blocks hold them: a power of two, so that there are few shapes to compile."""
    return 2 ** (max(-(-points // _BLOCK), 1) - 1).bit_length()


@partial(jax.jit, static_argnames=("apply",))
def _gather(apply, params, points, normals, cell):
    step = (_OUTSIDE + _INSIDE) / _STEPS
    offsets = cell * (_OUTSIDE - step * (jnp.arange(_STEPS) + 0.5))

    def block(inputs):
        at, normal = inputs
        length = jnp.linalg.norm(normal, axis=-1, keepdims=True)
        normal = normal / jnp.maximum(length, 1e-6)
        line = at[:, None] + offsets[:, None] * normal[:, None]
        density, albedo = apply(params, line.reshape(-1, 3))
        weights, opacity = absorption(density.reshape(line.shape[:2]), cell * step)
        total = jnp.sum(weights[..., None] * albedo.reshape(*line.shape[:2], -1)[..., :3], 1)
        return total / jnp.maximum(opacity, 1e-6)[:, None], opacity

    return jax.lax.map(block, (points, normals))
