"""More objects out of those that there are: stretched, tapered and mirrored copies.

A prior that sees one object thousands of times learns it by heart; of its copies it must read the
proportions in the picture. Letters: n objects, v vertices.
"""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Float, Int16

from dsd_jax.data.objects import UNIT, Objects, framing_scale, offsets, quantised

STRETCH = 0.2  # deviation of the logarithm of each axis' factor
TAPER = 0.3  # the most by which x and z grow or shrink from the middle to the top


def with_deformed(objects: Objects, copies: int, rng: np.random.Generator) -> Objects:
    """`objects`, and after them `copies` deformed copies of each, n (1 + copies) in all.

    A copy is scaled along each axis, tapered along y, and mirrored at x = 0 every other time;
    colours, captions and all else stay. Sizes are as in a file: half-diagonal 1.
    """
    if not copies:
        return objects
    ends = objects.vertex_offset
    spans = list(itertools.pairwise(ends))
    vertices = [objects.vertices]
    for _ in range(copies):
        vertices += [_deformed(objects.vertices[start:stop], rng) for start, stop in spans]
    times, many = 1 + copies, np.concatenate(vertices)
    vertex_offset = offsets(np.tile(np.diff(ends), times))
    return dataclasses.replace(
        objects,
        vertices=many,
        faces=np.tile(objects.faces, (times, 1)),
        face_rgb=np.tile(objects.face_rgb, (times, 1)),
        vertex_offset=vertex_offset,
        face_offset=offsets(np.tile(objects.num_faces, times)),
        caption=objects.caption * times,
        category=objects.category * times,
        symmetric=np.tile(objects.symmetric, times),
        colourless=np.tile(objects.colourless, times),
        scale=framing_scale(many.astype(np.float32) / UNIT, vertex_offset),
    )


def _deformed(vertices: Int16[np.ndarray, "v 3"], rng: np.random.Generator):
    """One object's vertices, deformed, as they are stored."""
    factor = np.exp(rng.normal(0, STRETCH, 3)) * [rng.choice([-1, 1]), 1, 1]
    points: Float[np.ndarray, "v 3"] = vertices / UNIT * factor
    height = points[:, 1:2] / max(np.abs(points[:, 1]).max(), 1e-6)
    points[:, ::2] *= 1 + rng.uniform(-TAPER, TAPER) * height
    return quantised(points)
