"""How well a triangle mesh is made, from its vertices and faces alone.

Letters: n vertices, f faces, k pairs of faces, e edges.

Every function takes a mesh as `welded` returns it.

`bump_deg` and `creased_share` are those of the surface cut into 10,000 equal-sided triangles,
whatever it is made of: a low-poly object and a dense one of the same shape have the same. Nothing
need be cut, for cutting leaves what bends as it is: the edges between two faces are weighed by
their length over that of all edges of 10,000 equal-sided triangles of the same area. A mesh of more
faces is first simplified to so many. Neither depends on the unit of length, nor on how faces are
wound. Few sharp edges bump as much as many blunt ones: a house of boards and crumpled paper differ
in how much is creased.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    from trimesh import Trimesh

FACES = 10_000
# An edge that bends by more, in degrees, is a crease.
CREASE_DEG = 5.0
# Pairs that are tested at once; of a mesh of size 1, the volume below which points are coplanar.
_CHUNK, _FLAT = 1 << 21, 1e-13


def welded(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"]) -> "Trimesh":
    """The mesh with doubled vertices merged, as seams of a texture have them.

    Faces that then have a corner twice go. Raises ValueError if none is left.
    """
    import trimesh

    mesh = trimesh.Trimesh(np.asarray(vertices, np.float64), faces, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.update_faces((np.diff(np.sort(mesh.faces, 1), axis=1) > 0).all(1))
    mesh.remove_unreferenced_vertices()
    if not len(mesh.faces):
        raise ValueError("a mesh without faces has no geometry")
    return mesh


def measure(mesh: "Trimesh") -> dict[str, Any]:
    """Everything below, ready for JSON.

    Returns:
        bump_deg, creased_share: see `relief`.
        parts: see `parts`.
        watertight: whether every edge has exactly two faces.
        volume: in cubes of the mesh's unit of length; None unless watertight.
        self_intersecting: how many faces cut another one.
    """
    watertight = bool(mesh.is_watertight)
    return {
        **relief(mesh)._asdict(),
        "parts": parts(mesh),
        "watertight": watertight,
        "volume": abs(float(mesh.volume)) if watertight else None,
        "self_intersecting": int(self_intersecting(mesh).sum()),
    }


class Relief(NamedTuple):
    """How uneven a surface is when cut into 10,000 equal-sided triangles.

    Attributes:
        bump_deg: mean angle between neighbours, weighted by the length of the edge between them.
        creased_share: share of the length of all edges at which it exceeds `CREASE_DEG`.
    """

    bump_deg: float
    creased_share: float


def relief(mesh: "Trimesh", faces: int = FACES) -> Relief:
    """See above. Edges of one face, or of more than two, count as flat, as do doubled faces."""
    mesh = mesh.copy()
    mesh.update_faces(mesh.unique_faces())
    if len(mesh.faces) > faces:
        mesh = mesh.simplify_quadric_decimation(face_count=faces)
    angle_deg, length = dihedrals(mesh)
    share = length / (1.5 * faces * np.sqrt(4 / np.sqrt(3) * mesh.area / faces))
    return Relief(float((angle_deg * share).sum()), float(share[angle_deg > CREASE_DEG].sum()))


def dihedrals(mesh: "Trimesh") -> tuple[Float[np.ndarray, "e"], Float[np.ndarray, "e"]]:
    """(angle in degrees, length) of every edge of exactly two faces; 0 is flat.

    Two faces that run along their edge in the same direction are not wound alike: one is turned.
    """
    from trimesh.grouping import group_rows

    ends = mesh.edges
    pairs = np.asarray(group_rows(mesh.edges_sorted, require_count=2))
    first, second = ends[pairs[:, 0]], ends[pairs[:, 1]]
    one, other = (_normals(mesh.triangles)[mesh.edges_face[side]] for side in pairs.T)
    turned = np.where((first == second).all(1), -1.0, 1.0)[:, None]
    angle = np.arctan2(np.linalg.norm(np.cross(one, other), axis=1), (turned * one * other).sum(1))
    return np.degrees(angle), np.linalg.norm(np.diff(mesh.vertices[first], axis=1)[:, 0], axis=1)


def _normals(corners: Float[np.ndarray, "f 3 3"]) -> Float[np.ndarray, "f 3"]:
    """Normals of any length; those of triangles without area are 0, at angle 0 to all."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def parts(mesh: "Trimesh") -> int:
    """Pieces that share no vertex."""
    from trimesh.graph import connected_component_labels

    return len(np.unique(connected_component_labels(mesh.edges_unique, len(mesh.vertices))))


def self_intersecting(mesh: "Trimesh") -> Bool[np.ndarray, "f"]:
    """Faces that an edge of another face cuts, or whose edge cuts one.

    Faces that only touch, or lie on one another in a plane, do not count.
    """
    corners = (mesh.triangles - mesh.bounds.mean(0)) / mesh.extents.max()
    found = np.zeros(len(corners), bool)
    for pairs in _boxes_that_meet(corners.min(1), corners.max(1)):
        hit = _cut(corners, mesh.faces, pairs) | _cut(corners, mesh.faces, pairs[:, ::-1])
        found[pairs[hit]] = True
    return found


def _boxes_that_meet(low: Float[np.ndarray, "f 3"], high: Float[np.ndarray, "f 3"]):
    """Yields [k, 2] pairs of boxes: swept along the axis on which they are shortest."""
    axis = int((high - low).mean(0).argmin())
    order = np.argsort(low[:, axis], kind="stable")
    low, high = low[order], high[order]
    count = np.searchsorted(low[:, axis], high[:, axis], "right") - np.arange(len(low)) - 1
    start = 0
    while start < len(low):
        total = np.cumsum(count[start:])
        stop = start + max(1, int(np.searchsorted(total, _CHUNK, "right")))
        own = np.repeat(np.arange(start, stop), count[start:stop])
        before = np.repeat(total[: stop - start] - count[start:stop], count[start:stop])
        other = own + 1 + np.arange(len(own)) - before
        meet = ((low[own] <= high[other]) & (low[other] <= high[own])).all(1)
        yield order[np.stack([own[meet], other[meet]], 1)]
        start = stop


def _cut(
    corners: Float[np.ndarray, "f 3 3"],
    faces: Int[np.ndarray, "f 3"],
    pairs: Int[np.ndarray, "k 2"],
) -> Bool[np.ndarray, "k"]:
    """Whether an edge of the first face goes through the inside of the second.

    An edge that ends at a corner of the second does not.
    """
    own, (a, b, c) = corners[pairs[:, 0]], np.moveaxis(corners[pairs[:, 1]], 1, 0)
    shared = (faces[pairs[:, 0], :, None] == faces[pairs[:, 1], None, :]).any(-1)
    above = np.stack([_volume(a, b, c, own[:, i]) for i in range(3)], 1)
    found = np.zeros(len(pairs), bool)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        through = (above[:, i] * above[:, j] < 0) & (np.abs(above[:, [i, j]]).min(1) > _FLAT)
        rows = np.flatnonzero(through & ~shared[:, i] & ~shared[:, j])
        p, q = own[rows, i], own[rows, j]
        around = ((a, b), (b, c), (c, a))
        sides = np.stack([_volume(p, q, one[rows], other[rows]) for one, other in around])
        found[rows] |= (sides > _FLAT).all(0) | (sides < -_FLAT).all(0)
    return found


def _volume(a, b, c, d) -> Float[np.ndarray, "k"]:
    """Six times the signed volume of tetrahedra."""
    return (np.cross(b - a, c - a) * (d - a)).sum(-1)
