"""How grainy objects look, and how full of holes: from their pictures on grey.

Letters: n objects, v views, h w pixels. The silhouette of a view is where it differs from the
background; its inside is that, filled and eroded. Real objects of a category set the scale: the
judge's bank knows theirs.
"""

import jax
import numpy as np
from jaxtyping import Bool, Float, Num
from scipy import ndimage

from dsd_jax.rendering.scene import GREY

SIZE = 128
# Of so many pixels: a colour that differs by more is no background, and the rim that is left out.
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


def of_views(views: Num[np.ndarray, "*n h w 3"]) -> Float[np.ndarray, "*n 2"]:
    """`of_view` of each; nan where hardly anything is to be seen."""
    flat = views.reshape(-1, *views.shape[-3:])
    found = [of_view(view) or (np.nan, np.nan) for view in flat]
    return np.reshape(found, (*views.shape[:-3], 2))


def summary(found: Float[np.ndarray, "*n 2"]) -> dict[str, float | None]:
    """ "grain", the median over the views that show something, and "holes", their mean."""
    found = found.reshape(-1, 2)
    found = found[np.isfinite(found[:, 0])]
    if not len(found):
        return {"grain": None, "holes": None}
    return {"grain": float(np.median(found[:, 0])), "holes": float(found[:, 1].mean())}


def of_objects(views: Num[np.ndarray, "n v h w 3"]) -> dict[str, float | None]:
    """ "grain", the median over views of all objects, and "holes", their mean."""
    return summary(of_views(views))


def beside_real(
    views: Num[np.ndarray, "n v h w 3"], grain: float, holes: float
) -> dict[str, float | None]:
    """ "grain" over that of real objects, "holes" less theirs: of pictures at the scale of theirs.

    None where hardly anything is to be seen.
    """
    found = of_objects(at_scale(views))
    own_grain, own_holes = found["grain"], found["holes"]
    return {
        "grain": None if own_grain is None or not grain > 0 else own_grain / grain,
        "holes": None if own_holes is None or not np.isfinite(holes) else own_holes - holes,
    }


def at_scale(views: Num[np.ndarray, "n v h w 3"]) -> Num[np.ndarray, "n v size size 3"]:
    """Pictures of `SIZE` pixels a side, from those of another size by an antialiasing filter."""
    if views.shape[2:4] == (SIZE, SIZE):
        return views
    colours = views / np.float32(255) if views.dtype == np.uint8 else views
    return np.asarray(jax.image.resize(colours, (*views.shape[:2], SIZE, SIZE, 3), "bilinear"))
