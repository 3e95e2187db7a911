"""Pieces of what is solid on a grid, before a surface is made around them.

Letters: g grid points along an axis.
"""

import numpy as np
from jaxtyping import Bool


def large_pieces(
    inside: Bool[np.ndarray, "g g g"], share: float
) -> tuple[Bool[np.ndarray, "g g g"], int]:
    """Without pieces (of 26 neighbours) that are small beside the largest; and their number.

    Raises ValueError where nothing is inside.
    """
    from skimage.measure import label

    pieces = np.asarray(label(inside, connectivity=3))
    sizes = np.bincount(pieces.ravel())
    if len(sizes) < 2:
        raise ValueError("the field is empty: it is nowhere as dense as the threshold")
    sizes[0] = 0
    large = sizes >= share * sizes.max()
    large[0] = False
    return large[pieces], int(len(sizes) - 1 - large.sum())


def joints_of(solid: Bool[np.ndarray, "g g g"]) -> Bool[np.ndarray, "g g g"]:
    """What joins the parts of a piece that share an edge or a corner alone: cells between them.

    Marching cubes would make a surface of each, and thin parts crumbs.
    """
    from skimage.measure import label

    joints, most = np.zeros_like(solid), solid.size
    parts = np.asarray(label(solid, connectivity=1))
    if parts.max() > 1:
        corners = list(np.ndindex(2, 2, 2))
        of_cell = [tuple(slice(i, i - 1 or None) for i in corner) for corner in corners]
        least = np.min([np.where(solid, parts, most)[c] for c in of_cell], 0)
        cells = least < np.max([parts[c] for c in of_cell], 0)
        for corner in of_cell:
            joints[corner] |= cells
    return joints & ~solid
