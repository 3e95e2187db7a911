"""A nearest-neighbour judge: does an object look like what was asked, and from where is it seen?

Letters: n objects to judge, v views, f features of `metrics.efficientnet`, d of the bank.

Real objects set the scale. The bank was made from views of 128 x 128 on grey 0.8, camera distance
2.7, vertical field of view 40 degrees, elevation 20 degrees, azimuths 0, 45, ... 315 degrees;
judge pictures made alike. The features of an object are the mean over its views.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from dsd_jax.metrics.bank import BACK, FRONT, SIDE, Bank, direction_columns
from dsd_jax.metrics.diversity import cosine_similarity, object_features, unit
from dsd_jax.metrics.nouns import category_of
from dsd_jax.rendering.cameras import AZIMUTHS_DEG, ELEVATION_DEG
from dsd_jax.rendering.scene import GREY

__all__ = ["AZIMUTHS_DEG", "ELEVATION_DEG"]

SIZE = 128
BACKGROUND = GREY
# Categories that have a front.
DIRECTED = ("car", "chair", "sofa", "fish")
NEIGHBOURS = 5


def nearest(
    bank: Bank, view_features: Float[np.ndarray, "n v f"], k: int = NEIGHBOURS
) -> Int[np.ndarray, "n k"]:
    """The k objects of the bank nearest by cosine to each object, nearest first."""
    features = object_features(view_features) @ bank.projection
    similarity = cosine_similarity(features, bank.features)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def neighbours(
    bank: Bank, view_features: Float[np.ndarray, "n v f"], k: int = NEIGHBOURS
) -> list[list[str]]:
    """Categories of the k nearest objects of the bank, nearest first."""
    found = bank.category[nearest(bank, view_features, k)]
    return [[bank.categories[c] for c in row] for row in found]


def accepts(
    bank: Bank, category: str, view_features: Float[np.ndarray, "n v f"], k: int = NEIGHBOURS
) -> Bool[np.ndarray, "n"]:
    """True where `category` is among those of the k nearest. Raises ValueError if unknown."""
    index = _index(bank, category)
    return (bank.category[nearest(bank, view_features, k)] == index).any(1)


def similarity(
    bank: Bank, category: str, view_features: Float[np.ndarray, "n v f"]
) -> Float[np.ndarray, "n"]:
    """Cosine of each object to the nearest real object of `category`. ValueError if unknown."""
    own = bank.features[bank.category == _index(bank, category)]
    return cosine_similarity(object_features(view_features) @ bank.projection, own).max(1)


def prompt_fidelity(bank: Bank, prompt: str, view_features: Float[np.ndarray, "n v f"]) -> dict:
    """The verdict on objects made for `prompt`, ready for JSON.

    Returns:
        category: what the prompt asks for, or None when it names nothing that the bank knows.
        accepted: share of objects with that category among their 5 nearest, or None.
        per_seed: the same for each object, as booleans, or None.
        neighbours: the 5 categories found for each object, nearest first.
        reason: why there is no score, or None.
    """
    category = category_of(prompt, bank.nouns)
    found = neighbours(bank, view_features)
    if category is None:
        reason = f"the judge knows no category in {prompt!r}"
        return {"category": None, "accepted": None, "per_seed": None, "neighbours": found,
                "reason": reason}  # fmt: skip
    per_seed = [category in row for row in found]
    return {"category": category, "accepted": float(np.mean(per_seed)), "per_seed": per_seed,
            "neighbours": found, "reason": None}  # fmt: skip


def has_front(bank: Bank, category: str) -> bool:
    """Whether the bank knows how the category looks from the front, the sides and the back."""
    return category in bank.categories and _index(bank, category) in bank.fronted


def direction_score(
    bank: Bank,
    category: str,
    view_features: Float[np.ndarray, "n v f"],
    azimuths_deg: Sequence[float],
) -> float:
    """Share of the views at azimuth 0, 90, 180, 270 that look most like their own direction.

    Raises ValueError when the category has no front in the bank or no view is at such an azimuth.
    """
    columns = direction_columns(azimuths_deg)
    if not columns:
        raise ValueError(f"no view at azimuth 0, 90, 180 or 270 among {list(azimuths_deg)}")
    means = _means(bank, category)
    hits = [
        nearest_direction(unit(view_features[:, view]) @ bank.projection, means) == own
        for view, own in columns
    ]
    return float(np.mean(hits))


def one_front_score(
    bank: Bank,
    category: str,
    view_features: Float[np.ndarray, "n v f"],
    azimuths_deg: Sequence[float],
) -> float:
    """Share of the views at azimuth 180 that look more like real back views than front views.

    Raises ValueError when the category has no front in the bank or no view is at azimuth 180.
    """
    views = [view for view, own in direction_columns(azimuths_deg) if own == BACK]
    if not views:
        raise ValueError(f"no view at azimuth 180 among {list(azimuths_deg)}")
    backs = unit(view_features[:, views[0]]) @ bank.projection
    return float(np.mean(looks_like_back(backs, _means(bank, category))))


def nearest_direction(
    views: Float[np.ndarray, "n d"], means: Float[np.ndarray, "3 d"]
) -> Int[np.ndarray, "n"]:
    """FRONT, SIDE or BACK: whose mean is nearest by cosine, all centred on the category's mean.

    Views and means come from features of length 1.
    """
    return _centred_cosines(views, means).argmax(1)


def looks_like_back(
    views: Float[np.ndarray, "n d"], means: Float[np.ndarray, "3 d"]
) -> Bool[np.ndarray, "n"]:
    """True where a view is nearer to the mean back view than to the mean front view."""
    cosines = _centred_cosines(views, means)
    return cosines[:, BACK] > cosines[:, FRONT]


def _centred_cosines(
    views: Float[np.ndarray, "n d"], means: Float[np.ndarray, "3 d"]
) -> Float[np.ndarray, "n 3"]:
    """The category's mean counts the side twice, as the four views of an object do."""
    centre = (means[FRONT] + 2 * means[SIDE] + means[BACK]) / 4
    return cosine_similarity(views - centre, means - centre)


def _index(bank: Bank, category: str) -> int:
    if category not in bank.categories:
        raise ValueError(f"the judge knows no category {category!r}")
    return bank.categories.index(category)


def _means(bank: Bank, category: str) -> Float[np.ndarray, "3 d"]:
    if not has_front(bank, category):
        raise ValueError(f"the judge knows no directions of {category!r}: too few fronts")
    row = int(np.flatnonzero(bank.fronted == _index(bank, category))[0])
    return bank.view_means[row]
