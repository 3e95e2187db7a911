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
    view_features: Float[np.ndarray, "o v f"], categories: Sequence[str], k: int = NEIGHBOURS
) -> Bool[np.ndarray, "o"]:
    """True where an object's own category is among those of its k nearest other objects."""
    features = object_features(view_features)
    similarity = cosine_similarity(features, features)
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
    symmetric: Bool[np.ndarray, "o"],
    azimuths_deg: Sequence[float],
    *,
    largest: int = 40,
    directed: Sequence[str] = ("car", "chair", "sofa", "fish"),
    diverse: Sequence[str] = ("house", "chair", "tree", "fish", "car"),
) -> dict[str, dict[str, float]]:
    """All scores of real objects, {score: {category: value}}; accepted also has their "mean".

    Categories with too few objects for a score (2; 3 for directions) are left out of it.
    """
    names = np.asarray(categories)
    right = accepted(view_features, categories)
    counts = Counter(categories)
    top = {str(name): float(right[names == name].mean()) for name, _ in counts.most_common(largest)}
    directions = {
        name: direction_scores(view_features[fronted], azimuths_deg)
        for name in directed
        if (fronted := (names == name) & ~np.asarray(symmetric)).sum() >= 3
    }
    distances = {
        name: diversity(view_features[names == name]) for name in diverse if counts[name] >= 2
    }
    return {
        "accepted": {"mean": float(np.mean(list(top.values())))} | top,
        "direction": {name: scores[0] for name, scores in directions.items()},
        "one_front": {name: scores[1] for name, scores in directions.items()},
        "distance": distances,
    }
