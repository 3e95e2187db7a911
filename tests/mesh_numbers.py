"""In the place of `studies.meshes`: of two seeds the first has a mesh, the second has none."""

import numpy as np


def looked_at(scenes, cameras):
    """Of n objects, seeds by turns."""
    assert all(scene is not None for scene in scenes) and cameras.fov_y.shape == (8,)
    numbers = {"mesh_iou": 0.9, "bump_deg": 12.0, "creased_share": 0.5, "parts": 1.0,
               "watertight": 1.0, "volume": 0.3, "self_intersecting": 0.0}  # fmt: skip
    some, objects = np.array([1, np.nan]), len(scenes) // 2
    clay = np.full((2, 8, 192, 192), 204, np.uint8)
    clay[0, :, 60:130, 50:140] = 120
    kept = {name: np.tile(value * some, objects) for name, value in numbers.items()}
    return kept | {"clay": np.tile(clay, (objects, 1, 1, 1))}


def with_points(scenes, cameras):
    """The first seed's mesh is a unit sphere."""
    points = np.random.default_rng(0).normal(size=(2, 10_000, 3)).astype(np.float32)
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    points[1] = np.nan
    return looked_at(scenes, cameras) | {"points": np.tile(points, (len(scenes) // 2, 1, 1))}
