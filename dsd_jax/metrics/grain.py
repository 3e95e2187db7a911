"""How grainy objects look, and how full of holes: from their pictures on grey.

Letters: n objects, v views, h w pixels. The silhouette of a view is where it differs from the
background; its inside is that, filled and eroded. Real objects of a category set the scale, see
`real_scores`: grain is given as a multiple of theirs.
"""

import numpy as np
from jaxtyping import Bool, Float, Num
from scipy import ndimage

from dsd_jax.rendering.scene import GREY

# Of 128 pixels: a colour that differs by more is no background, and the rim that is left out.
_DIFFERENT, _RIM, _LEAST = 0.04, 4, 60
_LUMA = np.array([0.299, 0.587, 0.114])


def silhouette(view: Float[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Where a picture is not background."""
    return np.abs(view - GREY).max(-1) > _DIFFERENT


def inside(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The silhouette with its holes filled, without specks and without its rim."""
    filled = ndimage.binary_opening(ndimage.binary_fill_holes(mask))
    return ndimage.binary_erosion(filled, iterations=_RIM)


def of_view(view: Num[np.ndarray, "h w 3"]) -> tuple[float, float] | None:
    """(grain, holes) of a picture of about 128 pixels; None where hardly anything is to be seen.

    Returns:
        grain: mean absolute Laplacian of the luma inside.
        holes: share of the inside that looks like the background.
    """
    view = np.asarray(view / 255.0 if view.dtype == np.uint8 else view)
    mask = silhouette(view)
    inner = inside(mask)
    if inner.sum() < _LEAST:
        return None
    curvature = np.abs(ndimage.laplace(view @ _LUMA))
    return float(curvature[inner].mean()), float((~mask)[inner].mean())


def of_objects(views: Num[np.ndarray, "n v h w 3"]) -> dict[str, float | None]:
    """ "grain", the median over views of all objects, and "holes", their mean."""
    found = [one for own in views for view in own if (one := of_view(view)) is not None]
    if not found:
        return {"grain": None, "holes": None}
    grain, holes = np.array(found).T
    return {"grain": float(np.median(grain)), "holes": float(holes.mean())}
