"""Does an object stand in the middle of its pictures and fill them, as a whole object does?

Half an object, or one that is far too small, is out of the middle or the frame, whatever its
category; and what has one colour all over is a shadow. Letters: n objects, v views around the
object, h w pixels.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from dsd_jax.metrics import grain

# Share of the silhouette beyond either end of its extent: specks do not count.
_BEYOND = 0.01


class Framing(NamedTuple):
    """How each object stands in its pictures; of an empty one sideways and upwards are 1.

    Attributes:
        sideways: distance of the silhouette's middle from the picture's, over its own width: the
            mean over views.
        upwards: the same of heights, but with signs: the mean's size.
        extent: the largest width or height in any view, over that of the picture.
        relief: see `relief`.
    """

    sideways: Float[np.ndarray, "n"]
    upwards: Float[np.ndarray, "n"]
    extent: Float[np.ndarray, "n"]
    relief: Float[np.ndarray, "n"]


def framing(views: Num[np.ndarray, "n v h w 3"]) -> Framing:
    """Of pictures on grey. Half of a symmetric object has 1/2 where its cut is seen edge on."""
    each = np.array([[_of_view(view) for view in own] for own in views])
    sideways, upwards, extent = np.moveaxis(each, -1, 0)
    texture = grain.of_views(grain.at_scale(views))
    return Framing(
        np.abs(sideways).mean(1), np.abs(upwards.mean(1)), extent.max(1), relief(texture)
    )


def relief(texture: Float[np.ndarray, "n v 2"]) -> Float[np.ndarray, "n"]:
    """Mean over views of the grain inside, of `grain.of_views`; inf where no view has an inside."""
    told = np.isfinite(texture[..., 0])
    total = np.where(told, texture[..., 0], 0).sum(1)
    return np.where(told.any(1), total / np.maximum(told.sum(1), 1), np.inf)


def _of_view(view: Num[np.ndarray, "h w 3"]) -> tuple[float, float, float]:
    mask = grain.silhouette(view / np.float32(255) if view.dtype == np.uint8 else view)
    if not mask.any():
        return 1.0, 1.0, 0.0
    (x, width), (y, height) = (_span(mask.sum(axis)) for axis in (0, 1))
    return x / width, y / height, max(width, height)


def _span(counts: Float[np.ndarray, "k"]) -> tuple[float, float]:
    """(middle from the picture's middle, length) of what is counted, both over the k pixels."""
    share = np.cumsum(counts) / counts.sum()
    first, last = np.searchsorted(share, [_BEYOND, 1 - _BEYOND])
    k = len(counts)
    return (first + last + 1 - k) / (2 * k), (last - first + 1) / k
