"""What real objects reach in the judge's scores, each left out of the reference in turn.

Letters: o objects, v views, f features. Near-duplicates must have been removed.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from dsd_jax.metrics.bank import BACK, direction_columns, direction_means
from dsd_jax.metrics.diversity import cosine_similarity, diversity, object_features, unit
from dsd_jax.metrics.judge import NEIGHBOURS, looks_like_back, nearest_direction


def accepted(
    view_features: Float[np.ndarray, "o v f"],
    categories: Sequence[str],
    k: int = NEIGHBOURS,
    seen: Float[np.ndarray, "o w f"] | None = None,
) -> Bool[np.ndarray, "o"]:
    """True where an object's own category is among those of its k nearest other objects.

    `seen` are the views by which an object is judged, if not those by which the others are known.
    """
    known = object_features(view_features)
    similarity = cosine_similarity(known if seen is None else object_features(seen), known)
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    names = np.asarray(categories)
    return (names[order] == names[:, None]).any(1)


def direction_scores(
    view_features: Float[np.ndarray, "o v f"], azimuths_deg: Sequence[float]
) -> tuple[float, float]:
    """(direction score, one-front score) of the objects of one category, which all have a front."""
    columns = direction_columns(azimuths_deg)
    hits, backs = [], []
    for i in range(len(view_features)):
        means = direction_means(np.delete(view_features, i, axis=0), azimuths_deg)
        for view, own in columns:
            seen = unit(view_features[i : i + 1, view])
            hits.append(nearest_direction(seen, means)[0] == own)
            if own == BACK:
                backs.append(looks_like_back(seen, means)[0])
    return float(np.mean(hits)), float(np.mean(backs))


def table(
    view_features: Float[np.ndarray, "o v f"],
    categories: Sequence[str],
    frontless: Bool[np.ndarray, "o"],
    azimuths_deg: Sequence[float],
    *,
    largest: int = 40,
    directed: Sequence[str] = ("car", "chair", "sofa", "fish"),
    diverse: Sequence[str] = ("house", "chair", "tree", "fish", "car"),
) -> dict[str, dict[str, float]]:
    """All scores of real objects, {score: {category: value}}.

    accepted: by the views at azimuth 0, 90, 180, 270 alone; accepted_single_view: each object by
    its second view, the others by all of theirs; both for the largest categories, with "mean".
    direction, one_front: `direction_scores`. distance: `metrics.diversity.diversity`, four views.
    Categories with too few objects for a score (2; 3 for directions) are left out of it.
    """
    names, fronted = np.asarray(categories), ~np.asarray(frontless, bool)
    counts = Counter(categories)
    top = [name for name, _ in counts.most_common(largest)]
    four = view_features[:, [view for view, _ in direction_columns(azimuths_deg)]]
    single = accepted(view_features, categories, seen=view_features[:, 1:2])
    directions = {
        name: direction_scores(view_features[fronted & (names == name)], azimuths_deg)
        for name in directed
        if (fronted & (names == name)).sum() >= 3
    }
    return {
        "accepted": _by_category(accepted(four, categories), names, top),
        "accepted_single_view": _by_category(single, names, top),
        "direction": {name: scores[0] for name, scores in directions.items()},
        "one_front": {name: scores[1] for name, scores in directions.items()},
        "distance": {name: diversity(four[names == name]) for name in diverse if counts[name] > 1},
    }


def _by_category(
    right: Bool[np.ndarray, "o"], names: np.ndarray, top: Sequence[str]
) -> dict[str, float]:
    shares = {str(name): float(right[names == name].mean()) for name in top}
    return {"mean": float(np.mean(list(shares.values())))} | shares
