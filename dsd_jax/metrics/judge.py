"""A judge: does an object look like what was asked, and from where is it seen?

Letters: n objects to judge, v views, f features of `metrics.efficientnet`, d and o numbers and
objects of the bank, c categories.

It accepts an object that gets enough of the vote, is whole (`metrics.wholeness`), and stands in its
frame as whole objects do (`metrics.framing`). The last two cannot be told from fewer than 4 sides.
How much is enough was found by `metrics.calibration`. Fidelity is the share of real objects that
are less alike to the nearest other one of their category than the object is.

Real objects set the scale. The bank was made from views of 128 x 128 on grey 0.8, camera distance
2.7, vertical field of view 40 degrees, elevation 20 degrees, azimuths 0, 45, ... 315 degrees;
judge pictures made alike. The features of an object are the mean over its views.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from dsd_jax.metrics import wholeness
from dsd_jax.metrics.bank import BACK, FRONT, SIDE, Bank, Limits, direction_columns
from dsd_jax.metrics.diversity import cosine_similarity, object_features, unit
from dsd_jax.metrics.framing import Framing, framing
from dsd_jax.metrics.nouns import category_of
from dsd_jax.rendering.cameras import AZIMUTHS_DEG, ELEVATION_DEG
from dsd_jax.rendering.scene import GREY

__all__ = ["AZIMUTHS_DEG", "ELEVATION_DEG"]

SIZE = 128
BACKGROUND = GREY
# Categories that have a front.
DIRECTED = ("car", "chair", "sofa", "fish")
NEIGHBOURS = 5
TEMPERATURE = 0.1
_TOLD = ("percentile", "vote", "rival", "whole", "framed")


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


class Verdict(NamedTuple):
    """What is found of each object, asked for as one category.

    Attributes:
        vote: see `votes`.
        rival: index of the nearest other category.
        percentile: see `percentiles`.
        whole: in one piece; true where it cannot be told.
        framed: in the middle, large enough and not of one colour; true where it cannot be told.
        accepted: has enough of the vote, is whole and framed.
    """

    vote: Float[np.ndarray, "n"]
    rival: Int[np.ndarray, "n"]
    percentile: Float[np.ndarray, "n"]
    whole: Bool[np.ndarray, "n"]
    framed: Bool[np.ndarray, "n"]
    accepted: Bool[np.ndarray, "n"]


def verdict(
    bank: Bank,
    category: str,
    view_features: Float[np.ndarray, "n v f"],
    views: Num[np.ndarray, "n v h w 3"] | None = None,
) -> Verdict:
    """The judge's opinion; without the pictures, framing is left out. ValueError if unknown."""
    index = _index(bank, category)
    cosines = cosine_similarity(object_features(view_features) @ bank.projection, bank.features)
    vote, rival = votes(by_category(cosines, bank.category), index)
    percentile = percentiles(cosines[:, bank.category == index].max(1), _alike(bank, index))
    whole = framed = np.ones(len(view_features), bool)
    if view_features.shape[1] >= wholeness.LEAST_VIEWS:
        whole = wholeness.evidence(view_features) @ bank.whole >= bank.limits.whole
        framed = framed if views is None else within(framing(views), bank.limits)
    accepted = (vote >= bank.limits.vote) & whole & framed
    return Verdict(vote, rival, percentile, whole, framed, accepted)


def by_category(
    cosines: Float[np.ndarray, "n o"], category: Int[np.ndarray, "o"]
) -> Float[np.ndarray, "n c"]:
    """The largest cosine to an object of each category."""
    order = np.argsort(category, kind="stable")
    starts = np.searchsorted(category[order], np.arange(category.max() + 1))
    return np.maximum.reduceat(cosines[:, order], starts, axis=1)


def votes(
    nearest: Float[np.ndarray, "n c"], wanted: Int[np.ndarray, "n"] | int
) -> tuple[Float[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Each category votes with its nearest object, weighted by exp(cosine / 0.1).

    Returns:
        vote: weight of the category wanted over the sum of it and of the heaviest other, in [0, 1].
        rival: which other that is.
    """
    rows = np.arange(len(nearest))
    wanted = np.broadcast_to(wanted, len(nearest))
    own, others = nearest[rows, wanted], nearest.copy()
    others[rows, wanted] = -np.inf
    rival = others.argmax(1)
    return 1 / (1 + np.exp((others[rows, rival] - own) / TEMPERATURE)), rival


def percentiles(
    similarity: Float[np.ndarray, "n"], alike: Float[np.ndarray, "k"]
) -> Float[np.ndarray, "n"]:
    """Share of real objects that are less alike to their nearest; nan where there are none."""
    if not len(alike):
        return np.full(len(similarity), np.nan)
    return np.searchsorted(np.sort(alike), similarity, "left") / len(alike)


def within(found: Framing, limits: Limits) -> Bool[np.ndarray, "n"]:
    """True where an object stands in its frame as whole objects do."""
    middle = (found.sideways <= limits.sideways) & (found.upwards <= limits.upwards)
    return middle & (found.extent >= limits.extent) & (found.relief >= limits.relief)


def similarity(
    bank: Bank, category: str, view_features: Float[np.ndarray, "n v f"]
) -> Float[np.ndarray, "n"]:
    """Cosine of each object to the nearest real object of `category`. ValueError if unknown."""
    own = bank.features[bank.category == _index(bank, category)]
    return cosine_similarity(object_features(view_features) @ bank.projection, own).max(1)


def prompt_fidelity(
    bank: Bank,
    prompt: str,
    view_features: Float[np.ndarray, "n v f"],
    views: Num[np.ndarray, "n v h w 3"] | None = None,
) -> dict:
    """The verdict on objects made for `prompt`, ready for JSON.

    Returns:
        category: what the prompt asks for, or None when it names nothing that the bank knows.
        accepted: share of objects that the judge accepts, or None.
        fidelity: mean percentile, or None.
        per_seed: of each object whether it is accepted, or None.
        percentile, vote, rival, whole, framed: of each object, see `Verdict`, or None.
        neighbours: the 5 nearest objects' categories for each object, nearest first.
        reason: why there is no score, or None.
    """
    category = category_of(prompt, bank.nouns)
    found: dict = {"category": category, "neighbours": neighbours(bank, view_features)}
    if category is None:
        names = ("accepted", "fidelity", "per_seed", *_TOLD)
        reason = f"the judge knows no category in {prompt!r}"
        return found | dict.fromkeys(names) | {"reason": reason}
    told = verdict(bank, category, view_features, views)
    known = bool(np.isfinite(told.percentile).all())
    return found | {
        "accepted": float(told.accepted.mean()),
        "fidelity": float(told.percentile.mean()) if known else None,
        "per_seed": told.accepted.tolist(),
        **{name: getattr(told, name).tolist() for name in _TOLD},
        "percentile": told.percentile.tolist() if known else None,
        "rival": [bank.categories[c] for c in told.rival],
        "reason": None if known else f"the bank has a single {category!r}: there is no percentile",
    }


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


def _alike(bank: Bank, index: int) -> Float[np.ndarray, "k"]:
    found = bank.alike[bank.category == index]
    return found[np.isfinite(found)]


def _means(bank: Bank, category: str) -> Float[np.ndarray, "3 d"]:
    if not has_front(bank, category):
        raise ValueError(f"the judge knows no directions of {category!r}: too few fronts")
    row = int(np.flatnonzero(bank.fronted == _index(bank, category))[0])
    return bank.view_means[row]
