"""Is an object whole, or in pieces, flat, or of two? A direction among features that tells.

Letters: n objects, v views around an object, f features of `metrics.efficientnet`, m broken ones.
"""

import numpy as np
from jaxtyping import Float, Int

from dsd_jax.metrics.diversity import unit

# From fewer sides it cannot be told.
LEAST_VIEWS = 4
FOLDS = 5
_RIDGE = 0.2


def evidence(view_features: Float[np.ndarray, "n v f"]) -> Float[np.ndarray, "n 2f"]:
    """The mean over views, of length 1, beside twice the deviation between views of length 1."""
    each = unit(view_features)
    mean = np.asarray(view_features, np.float64).mean(1)
    return np.concatenate([unit(mean), 2 * each.std(1)], 1).astype(np.float32)


def direction(
    whole: Float[np.ndarray, "n 2f"], broken: Float[np.ndarray, "m 2f"]
) -> Float[np.ndarray, "2f"]:
    """Fisher's linear discriminant, both sides counting alike; larger along it is more whole.

    (C + r tr(C) / 2f)^-1 (mean whole - mean broken) / 2, with C the covariance of all.
    """
    rows = np.concatenate([whole, broken]).astype(np.float64)
    weight = np.repeat([0.5 / len(whole), 0.5 / len(broken)], [len(whole), len(broken)])
    rows -= weight @ rows
    covariance = (rows * weight[:, None]).T @ rows
    ridge = _RIDGE * np.trace(covariance) / len(covariance)
    apart = (rows[: len(whole)].mean(0) - rows[len(whole) :].mean(0)) / 2
    return np.linalg.solve(covariance + ridge * np.eye(len(covariance)), apart).astype(np.float32)


def left_out(
    whole: Float[np.ndarray, "n 2f"],
    broken: Float[np.ndarray, "m 2f"],
    source: Int[np.ndarray, "m"],
    judged: Float[np.ndarray, "k 2f"],
    origin: Int[np.ndarray, "k"],
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "k"]]:
    """How whole each object is by a direction that knows neither it nor what was made of it.

    Args:
        source: of each broken one, which whole object it was made from.
        judged, origin: others to judge, and the objects that they were made from.

    Objects are left out in `FOLDS` groups, each before the middle of its fold's two sides, so that
    folds compare.
    """
    fold, known = np.arange(len(whole)) % FOLDS, np.zeros(len(whole))
    found = np.zeros(len(judged))
    for k in range(FOLDS):
        own, kept = fold == k, fold[source] != k
        toward = direction(whole[~own], broken[kept])
        middle = (whole[~own].mean(0) + broken[kept].mean(0)) / 2 @ toward
        known[own] = whole[own] @ toward - middle
        rows = fold[origin] == k
        found[rows] = judged[rows] @ toward - middle
    return known, found
