"""The mesh of a user's file as a shape that is to be kept, see `fields.given`.

What is inside is what cannot be reached from outside, so that neither the winding of triangles nor
a gap narrower than a cell matters. Triangles both of whose sides can be reached are sheets; so that
a grid can hold them, they are taken to be a little more than a cell thick.

Letters: p vertices, t triangles, g grid points along an axis of the box [-1, 1]^3 (x, y, z), n
points.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from dsd_jax.data import mesh_files
from dsd_jax.data.objects import framing_scale
from dsd_jax.fields.given import CELLS, GivenShape

Up = Literal["auto", "y", "z"]
SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
MOST_FACES, MOST_BYTES = 50_000, 1_000_000_000
# Half of a sheet's thickness, and how far beside a triangle its sides are, in cells.
_HALF, _BESIDE = 0.6, 1.2
# Distances up to so many cells are exact; the others are interpolated on a grid as much coarser.
_EXACT, _COARSER = 3, 4
# Barycentric coordinates of the points of a triangle whose sides are looked at.
_POINTS = np.array([[2, 2, 2], [4, 1, 1], [1, 4, 1], [1, 1, 4]]) / 6
# Share of the surface that is worth a word if it is a sheet.
_MUCH = 0.05


def read_shape(
    path: str | Path, *, up: Up = "auto", turn_deg: float = 0.0, cells: int = CELLS
) -> GivenShape:
    """A mesh file, framed as the objects of Toybox's training are; colours are not looked at.

    Args:
        path: of one of `SUFFIXES`.
        up: the file's axis that is up (of z, -y is the front); auto is z of an STL, else y.
        turn_deg: turns it about the upright axis, counter-clockwise as seen from above, so that its
            front faces +z, where azimuth 0 is.
        cells: of the grid of distances.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no mesh, holds no triangles, or a coordinate is no number; one line.
    """
    path, doubts = Path(path), []
    if not np.isfinite(turn_deg):
        raise ValueError(f"--turn-deg must be a number of degrees, not {turn_deg}")
    vertices, faces = _cleaned(path, *_triangles(path))
    if len(faces) > MOST_FACES:
        doubts.append(f"its {len(faces):,} triangles become {MOST_FACES:,}")
        vertices, faces = _cleaned(path, *_reduced(vertices, faces))
    if up == "auto":
        up = "z" if path.suffix.lower() == ".stl" else "y"
        if path.suffix.lower() not in mesh_files.GLTF:
            doubts.append(f"it does not say which axis is up, and {up} is taken")
    vertices = _upright(vertices, up, turn_deg)
    middle = (vertices.min(0) + vertices.max(0)) / 2
    size = float(np.abs(vertices - middle).max())
    scale = float(framing_scale((vertices - middle) / size, np.array([0, len(vertices)]))[0]) / size
    world = (vertices - middle) * scale
    distance, sides = signed_distance(world, faces, cells)
    share = _area(world, faces[sides.all(1)]) / _area(world, faces)
    if share > _MUCH:
        doubts.append(f"{share:.0%} of its surface has no inside: it is open there, or very thin")
    world, faces = _turned_outward(world, faces, sides)
    origin = -middle * scale
    return GivenShape(
        distance, world.astype(np.float32), faces, 1 / scale, origin, path.stem, tuple(doubts)
    )


def _triangles(path: Path) -> tuple[Float[np.ndarray, "p 3"], Int[np.ndarray, "t 3"]]:
    """All triangles of a file, in its own coordinates."""
    import trimesh

    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a mesh file")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is no mesh file that is read: {', '.join(SUFFIXES)}")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES // 10**9} GB; simplify it first")
    try:
        mesh_files.check_triangles(path)
        scene = trimesh.load_scene(path, process=False)
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh)]
        if not all(((p.faces >= 0) & (p.faces < len(p.vertices))).all() for p in parts):
            raise ValueError("a triangle of it has a vertex that is not there")
    except Exception as error:  # trimesh's readers raise whatever they stumble over
        raise ValueError(f"{path} cannot be read as a mesh: {mesh_files.why(error)}") from None
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise ValueError(f"{path} holds no triangles (or compressed ones, which are not read)")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [part.faces + start for part, start in zip(parts, starts, strict=False)]
    vertices = np.concatenate([np.asarray(part.vertices, np.float64) for part in parts])
    return vertices, np.concatenate(faces).astype(np.int64)


def _cleaned(path: Path, vertices, faces):
    """Without triangles that have no area, and vertices of none."""
    used, inverse = np.unique(faces, return_inverse=True)
    if not np.isfinite(vertices[used]).all():
        raise ValueError(f"{path} holds a coordinate that is no number; repair it first")
    vertices, faces = vertices[used], inverse.reshape(-1, 3)
    size = np.ptp(vertices, axis=0).max() if len(faces) else 0
    solid = _areas(vertices / max(size, 1e-300), faces) > 1e-12
    if not solid.any():
        raise ValueError(f"{path} holds no triangle that has an area")
    used, inverse = np.unique(faces[solid], return_inverse=True)
    return vertices[used], inverse.reshape(-1, 3)


def _reduced(vertices, faces):
    """At most `MOST_FACES` triangles, nearly."""
    import fast_simplification

    low, size = vertices.min(0), np.ptp(vertices, axis=0).max()
    part = 1 - (MOST_FACES - 8) / len(faces)
    unit = ((vertices - low) / size).astype(np.float32)
    found = fast_simplification.simplify(unit, faces.astype(np.int32), part)
    return found[0].astype(np.float64) * size + low, found[1].astype(np.int64)


def _upright(vertices, up: str, turn_deg: float):
    """y up; turned about it."""
    if up == "z":
        vertices = vertices[:, [0, 2, 1]] * [1, 1, -1]
    sin, cos = np.sin(np.radians(turn_deg)), np.cos(np.radians(turn_deg))
    x, y, z = vertices.T
    return np.stack([cos * x + sin * z, y, cos * z - sin * x], -1)


def signed_distance(
    vertices: Float[np.ndarray, "p 3"], faces: Int[np.ndarray, "t 3"], cells: int
) -> tuple[Float[np.ndarray, "g g g"], Bool[np.ndarray, "t 2"]]:
    """Distance to the surface at grid points, and which sides of triangles are seen from outside.

    Args:
        vertices: inside the box.

    Returns:
        Distance in world units, negative inside and up to `_HALF` of a cell beside a sheet. Of each
        triangle's two sides the first is that from which it is counter-clockwise.
    """
    step, grid = 2 / cells, _grid(cells)
    away = _coarsely(vertices, faces, cells)
    near = np.flatnonzero(away.reshape(-1) < _EXACT * step)
    points = grid[near]
    squared, face, foot = _nearest(points, vertices, faces)
    away.reshape(-1)[near] = np.sqrt(squared)
    free = away > step / 2
    outside = _reached(free)
    sides = _seen_sides(vertices, faces, free, outside, step)
    sign = np.where(outside, 1.0, -1.0)
    normal = _normals(vertices, faces)[face]
    front = np.einsum("ni,ni->n", points - foot, normal) > 0
    hugging = ~free.reshape(-1)[near]
    told = np.where(sides[face, np.where(front, 0, 1)], 1.0, -1.0)
    sign.reshape(-1)[near[hugging]] = told[hugging]
    distance = away * sign
    sheets = faces[sides.all(1)]
    if len(sheets):
        thick = np.sqrt(_nearest(points, vertices, sheets)[0]) - _HALF * step
        distance.reshape(-1)[near] = np.minimum(distance.reshape(-1)[near], thick)
    return distance.astype(np.float32), sides


def _grid(cells: int) -> Float[np.ndarray, "n 3"]:
    axis = np.linspace(-1, 1, cells + 1)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def _nearest(points, vertices, faces) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(squared distance [n], triangle [n], nearest point [n, 3]) of points."""
    import igl

    given = (np.ascontiguousarray(part) for part in (points, vertices, faces))
    squared, face, foot = igl.point_mesh_squared_distance(*given)
    return np.asarray(squared), np.asarray(face), np.asarray(foot)


def _coarsely(vertices, faces, cells: int) -> Float[np.ndarray, "g g g"]:
    """Distance without sign, exact at every `_COARSER`-th grid point, interpolated between."""
    from scipy.ndimage import zoom

    few = cells // _COARSER
    coarse = np.sqrt(_nearest(_grid(few), vertices, faces)[0]).reshape((few + 1,) * 3)
    return np.asarray(zoom(coarse, (cells + 1) / (few + 1), order=1, grid_mode=False))


def _reached(free: Bool[np.ndarray, "g g g"]) -> Bool[np.ndarray, "g g g"]:
    """Free grid points that a way over free ones leads to from the border."""
    from scipy.ndimage import label

    found: Any = label(np.pad(free, 1, constant_values=True))
    pieces = found[0][1:-1, 1:-1, 1:-1]
    return free & (pieces == 1)


def _seen_sides(vertices, faces, free, outside, step: float) -> Bool[np.ndarray, "t 2"]:
    """Whether most of what is free a little beside a triangle can be reached from outside.

    Asked are the corners of the cells there that lie on the same side of it.
    """
    corners = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), -1).reshape(8, 3)
    normals, last = _normals(vertices, faces), len(free) - 1
    at = np.einsum("kc,tci->tki", _POINTS, vertices[faces])
    seen = []
    for sign in (1, -1):
        beside = (at + sign * _BESIDE * step * normals[:, None] + 1) / step
        near = np.clip(np.floor(beside)[:, :, None].astype(int) + corners, 0, last)
        weight = np.prod(1 - np.minimum(np.abs(beside[:, :, None] - near), 1), -1)
        same = np.einsum("tkci,ti->tkc", near * step - 1 - at[:, :, None], sign * normals) > 0
        place = tuple(np.moveaxis(near, -1, 0))
        weight = weight * same * free[place]
        reached = np.sum(weight * outside[place], (1, 2))
        seen.append(reached > 0.5 * np.sum(weight, (1, 2)))
    return np.stack(seen, -1)


def _turned_outward(vertices, faces, sides):
    """Triangles counter-clockwise from where they are seen; sheets twice, with vertices of their
    own."""
    behind = sides[:, 1] & ~sides[:, 0]
    faces = np.where(behind[:, None], faces[:, ::-1], faces)
    sheets = faces[sides.all(1)]
    used, inverse = np.unique(sheets, return_inverse=True)
    backs = inverse.reshape(-1, 3)[:, ::-1] + len(vertices)
    return np.concatenate([vertices, vertices[used]]), np.concatenate([faces, backs])


def _cross(vertices, faces):
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    return np.cross(b - a, c - a)


def _normals(vertices, faces) -> Float[np.ndarray, "t 3"]:
    found = _cross(vertices, faces)
    return found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-300)


def _areas(vertices, faces) -> Float[np.ndarray, "t"]:
    return np.linalg.norm(_cross(vertices, faces), axis=-1) / 2


def _area(vertices, faces) -> float:
    return float(_areas(vertices, faces).sum())
