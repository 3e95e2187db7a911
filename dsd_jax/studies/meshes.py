"""Meshes of a study's objects: beside their fields, as geometry, and as clay.

A result keeps for each seed what was measured of its mesh and its views as clay, not the mesh.
Letters: n seeds, v = 8 views, h w pixels, m vertices, f faces, p points.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dsd_jax.engine.mesh_scores import SIZE, Seen, geometries, look_at
from dsd_jax.export.field_grid import field_of
from dsd_jax.export.mesh import MOST_WORKERS, MeshResult, MeshSettings, make_mesh
from dsd_jax.export.raster import seen
from dsd_jax.export.scenes import SavedScene
from dsd_jax.metrics import chamfer
from dsd_jax.metrics.bank import Bank
from dsd_jax.rendering.cameras import AZIMUTHS_DEG, DISTANCE, FOV_DEG, Camera, ring

COLUMNS = {"bump": ".2f", "one_part": ".0%", "self_intersecting": ".1f", "clay": ".0%",
           "mesh_iou": ".3f"}  # fmt: skip
NOTE = (
    "Bump: over that of real objects; one part: the share of meshes that are one watertight part; "
    "self intersecting: faces that cut others; clay: the share that the judge takes for what was "
    "asked, without texture; mesh iou: of the silhouettes of field and mesh."
)
# A texture would take most of the time, and tells nothing of geometry.
SETTINGS = MeshSettings(vertex_colours=True)
_NUMBERS = ("bump_deg", "creased_share", "parts", "watertight", "volume", "self_intersecting")


# What a batch asks of n scenes, and the cameras that meshes and fields are compared from.
Look = Callable[[Sequence[SavedScene | None], Camera], dict[str, np.ndarray]]


def looked_at(scenes: Sequence[SavedScene | None], cameras: Camera) -> dict[str, np.ndarray]:
    """What a result keeps of the meshes of n scenes; of None, and where no mesh can be made, NaN.

    Returns "mesh_iou" [n], every number [n] of `metrics.geometry.measure`, and "clay" [n, v, h, w]
    uint8.
    """
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_WORKERS)) as pool:
        return _kept(list(pool.map(lambda scene: _mesh_of(scene, cameras)[1], scenes)))


def with_points(scenes: Sequence[SavedScene | None], cameras: Camera) -> dict[str, np.ndarray]:
    """`looked_at`, and "points" [n, p, 3] float32, see `seen_points`."""

    def look(scene: SavedScene | None) -> tuple[Seen | None, np.ndarray]:
        made, found = _mesh_of(scene, cameras)
        if made is None:
            return found, np.full((chamfer.POINTS, 3), np.nan)
        return found, seen_points(made.model.vertices / made.scale + made.origin, made.model.faces)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_WORKERS)) as pool:
        found = list(pool.map(look, scenes))
    points = np.stack([own for _, own in found]).astype(np.float32)
    return _kept([seen for seen, _ in found]) | {"points": points}


def seen_points(
    vertices: Float[np.ndarray, "m 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "p 3"]:
    """Points spread evenly over what is seen of a mesh in world coordinates from all sides.

    `chamfer.POINTS` of them, some twice where little is seen, NaN where nothing is.
    """
    points = chamfer.surface_points(vertices, faces, 4 * chamfer.POINTS)
    rings = [ring(AZIMUTHS_DEG, elevation, DISTANCE, FOV_DEG) for elevation in (-30, 20, 70)]
    there = np.any([seen(points, vertices, faces, cameras) for cameras in rings], 0)
    found = points[there] if there.any() else np.full((1, 3), np.nan)
    return np.resize(found[: chamfer.POINTS], (chamfer.POINTS, 3))


def _mesh_of(scene: SavedScene | None, cameras: Camera) -> tuple[MeshResult | None, Seen | None]:
    try:
        made = None if scene is None else make_mesh(field_of(scene), cameras, SETTINGS)
    except ValueError:
        made = None
    if made is None:
        return None, None
    return made, look_at(made.model.vertices, made.model.faces, made.report(), cameras)


def _kept(found: Sequence[Seen | None]) -> dict[str, np.ndarray]:
    nothing = np.zeros((len(AZIMUTHS_DEG), SIZE, SIZE), np.uint8)
    kept = {"mesh_iou": np.array([own.iou if own else np.nan for own in found])}
    for name in _NUMBERS:
        kept[name] = np.array([own.measured[name] if own else None for own in found], float)
    return kept | {"clay": np.stack([own.clay[..., 0] if own else nothing for own in found])}


def scores(
    arrays: Mapping[str, np.ndarray], left: Bool[np.ndarray, "n"], category: str | None, bank: Bank
) -> dict[str, Any]:
    """ "mesh_iou" and the means of `mesh_scores.geometries`; nothing where there is no mesh.

    Args:
        arrays: a result.
        left: the seeds that count.
        bank: of clay.
    """
    if "mesh_iou" not in arrays:
        return {}
    there = left & np.isfinite(arrays["mesh_iou"])
    if not there.any():
        return {}
    rows = zip(*(arrays[name][there].tolist() for name in _NUMBERS), strict=True)
    measured = [
        {name: None if np.isnan(x) else x for name, x in zip(_NUMBERS, row, strict=True)}
        for row in rows
    ]
    views = np.repeat(arrays["clay"][there][..., None], 3, -1)
    whole = (arrays["watertight"] == 1) & (arrays["parts"] == 1)
    means = {"mesh_iou": arrays["mesh_iou"], "one_part": whole}
    told = {name: float(values[there].mean()) for name, values in means.items()}
    return told | geometries(measured, views, category, bank).run
