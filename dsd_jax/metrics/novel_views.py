"""Objects made from one picture beside the object that it shows: do they agree, and where differ?

Letters: n seeds, v views (the first is the picture's own), h w pixels, f features of
`metrics.efficientnet`. Azimuths are counted from the camera that took the picture.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from dsd_jax.metrics.averages import means
from dsd_jax.metrics.diversity import diversity, unit
from dsd_jax.recipe.viewpoints import VISIBLE_DEG
from dsd_jax.rendering.agreement import iou, psnr

# A view is of the visible side up to so far from the picture's, and of the hidden side from so far.
HIDDEN_DEG = 120.0
SIDES = ("visible", "hidden")


class Views(NamedTuple):
    """Pictures of an object, or of several: leading axes [v] or [n, v].

    Attributes:
        rgb: in [0, 1], all on one background.
        opacity: in [0, 1].
        features: of `rgb`.
    """

    rgb: Float[np.ndarray, "*n v h w 3"]
    opacity: Float[np.ndarray, "*n v h w"]
    features: Float[np.ndarray, "*n v f"]


def perceptual(
    ours: Float[np.ndarray, "*n f"], theirs: Float[np.ndarray, "*m f"]
) -> Float[np.ndarray, "*n"]:
    """Cosine distance 1 - cos of features."""
    return 1 - (unit(ours) * unit(theirs)).sum(-1)


def sides(azimuths_deg: Sequence[float]) -> dict[str, Bool[np.ndarray, "v"]]:
    """Which views show the visible and which the hidden side; those between them are of neither."""
    apart = np.abs((np.asarray(azimuths_deg) + 180) % 360 - 180)
    return {"visible": apart <= VISIBLE_DEG, "hidden": apart >= HIDDEN_DEG}


def of_object(made: Views, truth: Views, azimuths_deg: Sequence[float]) -> dict[str, float]:
    """All scores of the n seeds of one picture.

    Args:
        made: [n, v] and truth: [v] views.
        azimuths_deg: of the v views, the picture's first.

    Returns:
        reference_psnr, reference_iou: at the picture's own view, mean over seeds.
        psnr_mean, iou_mean, perceptual_mean: at the other views, mean over them and over seeds.
        psnr_best, iou_best, perceptual_best: the same of the seed that is best at it.
        visible, hidden: mean cosine distance between seeds, view by view, on that side.
    """
    psnrs, ious = psnr(made.rgb, truth.rgb), iou(made.opacity, truth.opacity)
    apart = perceptual(made.features, truth.features)
    row = {"reference_psnr": psnrs[:, 0].mean(), "reference_iou": ious[:, 0].mean()}
    kinds = {"psnr": (psnrs, np.max), "iou": (ious, np.max), "perceptual": (apart, np.min)}
    for name, (values, best) in kinds.items():
        of_seeds = values[:, 1:].mean(1)
        row |= {f"{name}_mean": of_seeds.mean(), f"{name}_best": best(of_seeds)}
    views = np.split(made.features, made.features.shape[1], axis=1)
    between = np.array([diversity(view) for view in views])
    row |= {name: between[of_side].mean() for name, of_side in sides(azimuths_deg).items()}
    return {name: float(value) for name, value in row.items()}


def summary(objects: Iterable[Mapping[str, float]]) -> dict[str, float | None]:
    """Means over objects, and of the diversities "hidden_over_visible"."""
    row = means(objects)
    return row | {"hidden_over_visible": _ratio(row.get("hidden"), row.get("visible"))}


def compared(
    rows: Mapping[str, Mapping[str, Any]], reference: str
) -> dict[str, dict[str, float | None]]:
    """Each row's diversities over those of the row `reference`: "visible_of_<reference>", ..."""
    base = rows[reference]
    return {
        name: {f"{side}_of_{reference}": _ratio(row.get(side), base.get(side)) for side in SIDES}
        for name, row in rows.items()
    }


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
