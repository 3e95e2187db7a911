"""How far two surfaces lie from each other, by points on them.

    chamfer(A, B) = 1/2 (mean over a in A of min over b in B of |a - b|
                         + mean over b in B of min over a in A of |a - b|)

The mean of both directions, of distances and not of their squares. Letters: v vertices, f faces,
p q points, n seeds. Lengths are in the unit of the coordinates; `unit_box` makes them parts of the
longest side of the truth.
"""

import numpy as np
from jaxtyping import Float, Int

POINTS = 10_000


def surface_points(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    count: int = POINTS,
    seed: int = 0,
) -> Float[np.ndarray, "p 3"]:
    """Points spread evenly over the area of a mesh; the same for the same seed."""
    import trimesh

    mesh = trimesh.Trimesh(np.asarray(vertices, np.float64), faces, process=False)
    return np.asarray(trimesh.sample.sample_surface(mesh, count, seed=seed)[0], np.float64)


def chamfer(ours: Float[np.ndarray, "p 3"], theirs: Float[np.ndarray, "q 3"]) -> float:
    """See above. Raises ValueError where one has no points, or some that are not finite."""
    from scipy.spatial import KDTree

    for points in (ours, theirs):
        if not len(points) or not np.isfinite(points).all():
            raise ValueError("a Chamfer distance needs points, all of them finite")
    there, back = KDTree(theirs).query(ours)[0], KDTree(ours).query(theirs)[0]
    return float(there.mean() + back.mean()) / 2


def unit_box(points: Float[np.ndarray, "p 3"]) -> float:
    """Factor that makes the longest side of the box around the points 1 long."""
    return float(1 / np.ptp(points, axis=0).max())


def of_seeds(
    made: Float[np.ndarray, "n p 3"], truth: Float[np.ndarray, "q 3"]
) -> dict[str, float | None]:
    """ "chamfer_mean" and "chamfer_best" of the seeds, the truth's longest side being 1.

    Args:
        made: points of each seed, NaN for one without a surface, which does not count.
        truth: in the same coordinates.
    """
    scale, there = unit_box(truth), np.isfinite(made).all((1, 2))
    if not there.any():
        return {"chamfer_mean": None, "chamfer_best": None}
    found = [chamfer(scale * points, scale * truth) for points in made[there]]
    return {"chamfer_mean": float(np.mean(found)), "chamfer_best": min(found)}
