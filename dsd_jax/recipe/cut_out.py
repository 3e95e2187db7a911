"""An object cut out of a picture by its background, which is plain or softly shaded.

Letters: h w pixels of the picture, n of its border, k channels. Colours are sRGB in [0, 1].
"""

import numpy as np
from jaxtyping import Bool, Float, Shaped

# Colours, as distances in the unit cube: what counts as the same; what a background may differ by
# in itself; and the largest difference that is still asked of an object.
_SAME, _NOISE, _CLEAR = 0.03, 0.06, 0.2


def cut_out(rgb: Float[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "h w"], list[str]]:
    """The object on a plain or softly shaded background, 0 or 1, and what is doubtful about it.

    What differs from the background by more than the border does itself is the object: the largest
    connected piece of it, with its holes filled but for those that look like the background.
    """
    from scipy.ndimage import binary_fill_holes, gaussian_filter
    from skimage.measure import label

    off = rgb - _background(rgb)
    apart = np.linalg.norm(off, axis=-1)
    threshold = np.clip(2 * np.percentile(border_of(apart[..., None]), 90), _NOISE, _CLEAR)
    pieces = np.asarray(label(apart > threshold, connectivity=1))
    sizes = np.bincount(pieces.ravel())[1:]
    if not len(sizes):
        return np.zeros(rgb.shape[:2], np.float32), []
    largest = pieces == 1 + np.argmax(sizes)
    filled = np.asarray(binary_fill_holes(largest))
    open_ = _plain_holes(filled & ~largest, apart)
    doubts = []
    without_noise = border_of(gaussian_filter(off, (2, 2, 0)))
    uneven = (np.linalg.norm(without_noise, axis=-1) > _SAME).mean()
    if uneven > 0.02:
        doubts.append(f"the border, which should be background, is not plain ({uneven:.0%} of it)")
    if sizes[np.argsort(sizes)[:-1]].max(initial=0) > 0.2 * sizes.max():
        doubts.append("other pieces beside the largest were left out")
    if open_.any():
        doubts.append("holes that look like the background were left open")
    return np.asarray(filled & ~open_, np.float32), doubts


def _background(rgb: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """What stands behind the object: a quadratic of the place, fitted to the picture's border.

    It starts as the border's median colour; what is far from it, an object that is cut off for
    instance, does not count.
    """
    h, w, _ = rgb.shape
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    colours, at = border_of(rgb), border_of(terms)
    weights = np.zeros((6, 3))
    weights[0] = np.median(colours, 0)
    for _ in range(4):
        off = np.linalg.norm(colours - at @ weights, axis=-1)
        near = off <= max(_NOISE, 2 * np.median(off))
        weights = np.linalg.lstsq(at[near], colours[near])[0]
    return np.clip(terms @ weights, 0, 1)


def _plain_holes(
    holes: Bool[np.ndarray, "h w"], apart: Float[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Those of the holes through which the background is seen: as plain as that, and not tiny.

    Args:
        apart: distance of the colours from the background's.
    """
    from skimage.measure import label, regionprops

    found = np.zeros_like(holes)
    for hole in regionprops(np.asarray(label(holes, connectivity=1)), apart):
        values = hole.image_intensity[hole.image]
        if hole.area >= holes.size / 2000 and np.median(values) <= _SAME / 2:
            found[tuple(hole.coords.T)] = True
    return found


def border_of(picture: Shaped[np.ndarray, "h w k"]) -> Shaped[np.ndarray, "n k"]:
    """The pixels of the outermost rows and columns, together 1 % of a side."""
    h, w, k = picture.shape
    width = max(1, min(h, w) // 100)
    inside = np.zeros((h, w), bool)
    inside[width:-width, width:-width] = True
    return picture[~inside].reshape(-1, k)
