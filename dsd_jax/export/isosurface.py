"""From density to a closed surface: a threshold, marching cubes, few faces.

Letters: g grid points along an axis of the box [-1, 1]^3 (x, y, z), d grids, v views, h w pixels,
n vertices, f faces, t thresholds. An isosurface of density is taken of log(1 + density), which is
nearly linear where matter begins, so that marching cubes place it well between two grid points.

What looks solid in pictures may be a sponge, pictures cannot tell. So pores are closed first: by a
morphological closing of the grid, which leaves convex surfaces where they are.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dsd_jax.export.field_grid import DEVICES
from dsd_jax.export.pieces import joints_of, large_pieces
from dsd_jax.fields.hash_grid import encode
from dsd_jax.fields.solids import KEPT_SHARE
from dsd_jax.rendering.agreement import iou
from dsd_jax.rendering.cameras import Camera, rays
from dsd_jax.rendering.occupancy import init, is_met
from dsd_jax.rendering.sampling import ray_ball

# Pores and gaps up to twice so many cells wide are closed, if silhouettes agree (nearly) as well.
CLOSINGS = (0, 1, 2, 3)
_CLOSING_COST = 0.002
# Silhouettes that agree so nearly as well as the best ones count as equal to them.
_PLATEAU = 0.001
# Of fast_simplification: at 7, its default, it tears closed surfaces now and then.
_AGGRESSION = 5
# It keeps its mesh in global variables: two threads at once would get each other's.
_REDUCING = threading.Lock()
# Grid points this near the isosurface, in log(1 + density), are moved away: vertices on a grid
# point would be of one place. What joins two parts of a piece is solid by so much.
_APART, _JOINT = 0.02, 0.5
# The least density that is tried as a threshold: a tenth of a ray is lost per unit length.
_LEAST = 0.1


def closed(density: Float[np.ndarray, "g g g"], cells: int) -> Float[np.ndarray, "g g g"]:
    """Density whose pores and gaps narrower than a ball of this radius are as dense as their rims.

    It is nowhere smaller than before.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    if not cells:
        return density
    offsets = np.indices((2 * cells + 1,) * 3) - cells
    ball = np.square(offsets).sum(0) <= (cells + 0.25) ** 2
    grown = maximum_filter(np.pad(density, cells), footprint=ball)
    return minimum_filter(grown, footprint=ball)[(slice(cells, -cells),) * 3]


@partial(jax.jit, static_argnames=("size",))
def _peaks(values, occupancy, cameras, size: int) -> Array:
    return jax.lax.map(lambda camera: _peaks_of_view(values, occupancy, camera, size), cameras)


def _peaks_of_view(values, occupancy, camera, size: int) -> Array:
    cells = values.shape[0] - 1
    table = values.transpose(2, 1, 0, 3).reshape(-1, values.shape[3])
    steps = cells + cells // 2

    def block(inputs):
        origins, directions, _ = inputs
        near, far = ray_ball(origins, directions)
        part = (jnp.arange(steps) + 0.5) / steps
        distance = near[:, None] + part * (far - near)[:, None]
        points = origins[:, None] + distance[..., None] * directions[:, None]
        found = encode((table,), points.reshape(-1, 3), (cells,))
        return found.reshape(size, steps, -1).max(1)

    def block_if_met(inputs):
        nothing = jnp.zeros((size, values.shape[3]), values.dtype)
        return jax.lax.cond(inputs[-1].any(), block, lambda _: nothing, inputs)

    origins, directions = (x.reshape(-1, 3) for x in rays(camera, size, size))
    met = is_met(occupancy, origins, directions, *ray_ball(origins, directions))
    order = jnp.argsort(~met, stable=True)  # so that few blocks hold all that are met
    blocks = [x[order].reshape(size, size, *x.shape[1:]) for x in (origins, directions, met)]
    found = jax.lax.map(block_if_met, blocks)
    return found.reshape(size * size, -1)[jnp.argsort(order)].reshape(size, size, -1)


def peaks(
    densities: Sequence[Float[np.ndarray, "g g g"]],
    cameras: Camera,
    size: int,
    least: float = _LEAST,
) -> Float[np.ndarray, "d v h w"]:
    """Largest density of each of d grids along each pixel's ray; those below `least` may be 0.

    A ray meets the isosurface of a threshold iff its peak reaches it: one such picture holds the
    silhouettes of all thresholds from `least` on.
    """
    from scipy.ndimage import maximum_filter

    # A cell is occupied if one of its corners or of its neighbours' is so dense.
    dense = maximum_filter(np.max(densities, 0) >= least, 4, origin=-1)[:-1, :-1, :-1]
    occupancy = init(len(dense))._replace(occupied=jnp.asarray(dense))
    values = jnp.log1p(jnp.stack([jnp.asarray(x) for x in densities], -1))
    with DEVICES:
        views = np.asarray(_peaks(values, occupancy, cameras, size))
    return np.expm1(np.moveaxis(views, -1, 0))


def compilations(
    cells: int, cameras: Camera, size: int, grids: int = len(CLOSINGS)
) -> list[Callable[[], Any]]:
    """What compiles `peaks` of so many grids."""
    values = jax.ShapeDtypeStruct((*[cells + 1] * 3, grids), jnp.float32)
    grid = jax.eval_shape(partial(init, cells))
    return [lambda: _peaks.lower(values, grid, cameras, size).compile()]


def best_threshold(
    peak: Float[np.ndarray, "v h w"], mask: Bool[np.ndarray, "v h w"], candidates: int = 100
) -> float:
    """The density whose isosurface has silhouettes with the largest mean IoU with `mask`.

    Where many do equally well, the middle one of them.

    Raises ValueError where nothing is in any mask.
    """
    if not mask.any():
        raise ValueError("the field is empty: nothing in it hides half of the background")
    low = max(float(peak[mask].min()), _LEAST)
    thresholds = np.geomspace(low, max(float(peak.max()), low), candidates)
    scores = np.stack(
        [_ious(view, inside, thresholds) for view, inside in zip(peak, mask, strict=True)], 1
    ).mean(1)
    good = np.flatnonzero(scores >= scores.max() - _PLATEAU)
    return float(thresholds[good[len(good) // 2]])


def _ious(
    peak: Float[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"],
    thresholds: Float[np.ndarray, "t"],
) -> Float[np.ndarray, "t"]:
    """IoU of `mask` with where the peak reaches each threshold, by sorting; 1 if both are empty."""
    inside, outside = (
        len(values) - np.searchsorted(np.sort(values), thresholds)
        for values in (peak[mask], peak[~mask])
    )
    union = mask.sum() + outside
    return np.where(union, inside / np.maximum(union, 1), 1.0)


def best_surface(
    density: Float[np.ndarray, "g g g"],
    mask: Bool[np.ndarray, "v h w"],
    cameras: Camera,
    radii: Sequence[int] = CLOSINGS,
    threshold: float | None = None,
) -> tuple[Float[np.ndarray, "g g g"], int, float]:
    """Density, `closed` by the largest of the radii that costs no agreement of silhouettes.

    Also that radius, and its best threshold unless one is given.
    """
    grids = [closed(density, radius) for radius in radii]
    views = peaks(grids, cameras, mask.shape[-1], min(threshold or _LEAST, _LEAST))
    thresholds = [threshold or best_threshold(peak, mask) for peak in views]
    scores = [iou(p >= t, mask).mean() for p, t in zip(views, thresholds, strict=True)]
    good = [i for i, score in enumerate(scores) if score >= max(scores) - _CLOSING_COST]
    best = max(good, key=lambda i: radii[i])
    return grids[best], radii[best], thresholds[best]


def isosurface(
    density: Float[np.ndarray, "g g g"], threshold: float, kept_share: float = KEPT_SHARE
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "f 3"], int]:
    """Closed surface around what is at least as dense as `threshold`, by marching cubes.

    Pieces smaller than `kept_share` of the largest are left out, and cavities that no one can see
    are filled.

    Returns:
        World coordinates, triangles (counter-clockwise from outside), and how many pieces were
        left out.

    Raises ValueError where nothing is so dense.
    """
    from scipy.ndimage import binary_fill_holes
    from skimage.measure import marching_cubes

    kept, removed = large_pieces(density >= threshold, kept_share)
    joints = joints_of(kept)
    solid = np.asarray(binary_fill_holes(kept | joints))
    level, values = float(np.log1p(threshold)), np.log1p(density)
    values = np.where(density >= threshold, 0, values)  # pieces left out, unless solid below
    apart = np.where(joints, _JOINT, _APART)
    inside, outside = np.maximum(np.log1p(density), level + apart), level - _APART
    values = np.where(solid, inside, np.minimum(values, outside))
    vertices, faces, _, _ = marching_cubes(
        np.pad(values.astype(np.float32), 1), level, allow_degenerate=False
    )
    vertices = (vertices - 1) * (2 / (len(density) - 1)) - 1
    return vertices, _outward(vertices, faces), removed


def _outward(vertices, faces):
    """Triangles of a closed surface turned so that its signed volume is positive."""
    a, b, c = np.moveaxis(vertices[faces].astype(np.float64), 1, 0)
    volume = np.einsum("fi,fi->", a, np.cross(b, c))
    return faces if volume > 0 else faces[:, ::-1]


def simplify(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"], most: int
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "f 3"]]:
    """At most so many triangles, by quadric edge collapse (Garland and Heckbert 1997).

    Triangles without area and vertices of none are left out. Where fast_simplification opens the
    surface or lets it cut itself, libigl, ten times as slow, does not: unless there are too few
    triangles for all the holes through the object.

    Raises ValueError where neither comes down to so few.
    """
    if len(faces) <= most:
        return _without_slivers(vertices, faces)
    found = _without_slivers(*_reduced(vertices, faces, most))
    if len(found[1]) > most or not is_sound(*found):
        sound = _reduced_soundly(vertices, faces, most)
        found = sound if len(sound[1]) <= most else found
    if len(found[1]) > most:
        raise ValueError(f"{len(faces)} faces could not be reduced to {most}; allow more of them")
    return found


def _reduced(vertices, faces, most: int):
    """A little less than so many triangles, mostly."""
    import fast_simplification

    part, places = 1 - most * 0.995 / len(faces), vertices.astype(np.float64)
    with _REDUCING:
        found = fast_simplification.simplify(places, faces.astype(np.int32), part, agg=_AGGRESSION)
    return found[0], found[1]


def _reduced_soundly(vertices, faces, most: int):
    """Collapses neither open the surface nor let it cut itself."""
    import igl

    places, corners = (np.asfortranarray(x) for x in (vertices.astype(float), faces.astype("i4")))
    found = igl.qslim(places, corners, most, True)
    return np.asarray(found[0]), np.asarray(found[1])


def _without_slivers(vertices, faces):
    solid = np.linalg.norm(face_normals(vertices, faces), axis=1) > 1e-12
    used, inverse = np.unique(faces[solid], return_inverse=True)
    return vertices[used], inverse.reshape(-1, 3)


def is_sound(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"]) -> bool:
    """Whether the surface is closed and no triangle cuts another."""
    from igl.predicates import find_self_intersections

    places, corners = (
        np.ascontiguousarray(x) for x in (vertices.astype(float), faces.astype("i8"))
    )
    return is_closed(vertices, faces) and not find_self_intersections(places, corners, True)[0]


def is_closed(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"]) -> bool:
    """Whether every edge has two triangles, as files tell it: vertices of one place are one."""
    from trimesh import Trimesh

    mesh = Trimesh(vertices.astype(np.float32), faces, process=False)
    mesh.merge_vertices()
    return bool(mesh.is_watertight)


def face_normals(vertices, faces) -> Float[np.ndarray, "f 3"]:
    """Normals as long as twice the area."""
    a, b, c = np.moveaxis(vertices[faces].astype(np.float64), 1, 0)
    return np.cross(b - a, c - a)


def vertex_normals(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "n 3"]:
    """Unit normals: the mean over a vertex's triangles, weighted by area; up where it is zero."""
    normals = face_normals(vertices, faces)
    total = np.stack(
        [np.bincount(faces.ravel(), np.repeat(normals[:, i], 3), len(vertices)) for i in range(3)],
        -1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])
