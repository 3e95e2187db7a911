"""What real objects reach in the judge's scores, each left out of the reference in turn.

Letters: o objects, v views, f features. Near-duplicates must have been removed.
"""

import importlib.resources
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from dsd_jax.metrics import judge
from dsd_jax.metrics.bank import BACK, direction_columns, direction_means
from dsd_jax.metrics.diversity import cosine_similarity, diversity, object_features, unit
from dsd_jax.metrics.judge import looks_like_back, nearest_direction


def load() -> dict[str, dict[str, float]]:
    """The `table` of the objects in the package's bank."""
    file = importlib.resources.files("dsd_jax") / "assets" / "judge" / "real_scores.json"
    return json.loads(file.read_text())


def votes(
    view_features: Float[np.ndarray, "o v f"],
    categories: Sequence[str],
    seen: Float[np.ndarray, "o w f"] | None = None,
) -> Float[np.ndarray, "o"]:
    """The vote for each object's own category among the other objects; 0 where it is alone.

    `seen` are the views by which an object is judged, if not those by which the others are known.
    """
    known = object_features(view_features)
    similarity = cosine_similarity(known if seen is None else object_features(seen), known)
    np.fill_diagonal(similarity, -np.inf)
    category = np.unique(categories, return_inverse=True)[1]
    return judge.votes(judge.by_category(similarity, category), category)[0]


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
    passes: Bool[np.ndarray, "o"],
    least_vote: float,
    largest: int = 40,
    directed: Sequence[str] = ("car", "chair", "sofa", "fish"),
    diverse: Sequence[str] = ("house", "chair", "tree", "fish", "car"),
) -> dict[str, dict[str, float]]:
    """All scores of real objects, {score: {category: value}}.

    accepted: share of `passes`, see `metrics.calibration`; accepted_single_view: each object by its
    second view, which has a vote alone, the others by all of theirs; both for the largest
    categories, with "mean".
    direction, one_front: `direction_scores`. distance: `metrics.diversity.diversity`, four views.
    Categories with too few objects for a score (2; 3 for directions) are left out of it.
    """
    names, fronted = np.asarray(categories), ~np.asarray(frontless, bool)
    counts = Counter(categories)
    top = [name for name, _ in counts.most_common(largest)]
    four = view_features[:, [view for view, _ in direction_columns(azimuths_deg)]]
    single = votes(view_features, categories, seen=view_features[:, 1:2]) >= least_vote
    directions = {
        name: direction_scores(view_features[fronted & (names == name)], azimuths_deg)
        for name in directed
        if (fronted & (names == name)).sum() >= 3
    }
    return {
        "accepted": _by_category(passes, names, top),
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
