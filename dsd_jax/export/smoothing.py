"""Ripples smoothed off a mesh, its edges and corners kept: its normals first, then its vertices.

A hash grid interpolates linearly, which leaves a crease at every one of its cells. Each triangle's
normal becomes the mean of its neighbours', weighted by nearness, area and likeness (bilateral
normal filtering, Zheng et al. 2011, doi 10.1109/TVCG.2010.264); the vertices then move until
triangles have these normals (Sun et al. 2007, doi 10.1109/TVCG.2007.1065).

Letters: n vertices, f triangles, p pairs of triangles that share a vertex.
"""

from contextlib import suppress

import numpy as np
from jaxtyping import Float, Int

from dsd_jax.export.isosurface import face_normals, is_sound, simplify

# Normals further apart than a few times so much (a chord of the unit sphere) are an edge.
_LIKENESS = 0.25


def smooth_and_simple(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"], rounds: int, most: int
) -> tuple[Float[np.ndarray, "m 3"], Int[np.ndarray, "g 3"]]:
    """The surface after so many rounds of smoothing in at most so many triangles.

    Half as many rounds, or none, where it would be open or cut itself, or cannot be told in so
    few. Raises as `isosurface.simplify`.
    """
    for fewer in filter(None, (rounds, rounds // 2)):
        with suppress(ValueError):
            found = simplify(smooth(vertices, faces, fewer), faces, most)
            if is_sound(*found):
                return found
    return simplify(vertices, faces, most)


def smooth(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"], rounds: int
) -> Float[np.ndarray, "n 3"]:
    """Vertices after so many rounds of either kind; the triangles stay what they are."""
    if not rounds:
        return vertices
    places = np.asarray(vertices, np.float64)
    wanted = _smooth_normals(places, faces, rounds)
    triangles_at = np.maximum(np.bincount(faces.ravel(), minlength=len(places)), 1)[:, None]
    for _ in range(rounds):
        corners = places[faces]
        height = np.einsum("fi,fki->fk", wanted, corners.mean(1, keepdims=True) - corners)
        moves = height[..., None] * wanted[:, None]
        places = places + _sums(moves.reshape(-1, 3), faces.ravel(), len(places)) / triangles_at
    return places


def _smooth_normals(places, faces, rounds: int) -> Float[np.ndarray, "f 3"]:
    """Unit normals."""
    normals = face_normals(places, faces)
    area = np.linalg.norm(normals, axis=1)
    normals = normals / np.maximum(area, 1e-20)[:, None]
    one, other = _neighbours(faces, len(places))
    middle = places[faces].mean(1)
    apart = np.square(middle[one] - middle[other]).sum(1)
    near = area[other] * np.exp(-apart / (2 * max(np.mean(apart), 1e-20)))
    for _ in range(rounds):
        unlike = np.square(normals[one] - normals[other]).sum(1)
        weight = near * np.exp(-unlike / (2 * _LIKENESS**2))
        total = _sums(weight[:, None] * normals[other], one, len(faces)) + area[:, None] * normals
        length = np.linalg.norm(total, axis=1, keepdims=True)
        normals = np.where(length > 1e-20, total / np.maximum(length, 1e-20), normals)
    return normals


def _neighbours(faces, n: int) -> tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"]]:
    """All pairs of triangles that share a vertex, both ways round."""
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(len(faces)), 3)
    incidence = csr_matrix((np.ones(len(rows), bool), (rows, faces.ravel())), (len(faces), n))
    pairs = (incidence @ incidence.T).tocoo()
    apart = pairs.row != pairs.col
    return pairs.row[apart], pairs.col[apart]


def _sums(values: Float[np.ndarray, "m 3"], index, n: int) -> Float[np.ndarray, "n 3"]:
    """Of the rows with each index."""
    return np.stack([np.bincount(index, values[:, i], n) for i in range(3)], -1)
