"""How different a set of objects is, in the feature space of `metrics.efficientnet`.

Letters: n objects (or seeds), v views, d features. Arrays live on the host. Distances are cosine
distances 1 - cos of uncentred features; the features of an object are the mean over its views.
"""

import numpy as np
from jaxtyping import Float


def object_features(view_features: Float[np.ndarray, "n v d"]) -> Float[np.ndarray, "n d"]:
    """One feature vector per object: the mean over its views."""
    return np.asarray(view_features, np.float64).mean(1)


def unit(rows: Float[np.ndarray, "*batch d"]) -> Float[np.ndarray, "*batch d"]:
    """Rows scaled to length 1, float64; a row of zeros stays."""
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def cosine_similarity(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    """Cosines between the rows of a and of b, float64. A row of zeros is at cosine 0 of all."""
    return unit(a) @ unit(b).T


def pairwise_cosine_distance(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    """1 - cos between all rows, in [0, 2]; the diagonal is 0."""
    distance = np.maximum(1.0 - cosine_similarity(features, features), 0.0)
    np.fill_diagonal(distance, 0.0)
    return distance


def diversity(view_features: Float[np.ndarray, "n v d"]) -> float:
    """Mean cosine distance over all pairs of different objects; 0.0 for a single one."""
    return float(per_object_diversity(view_features).mean())


def per_object_diversity(view_features: Float[np.ndarray, "n v d"]) -> Float[np.ndarray, "n"]:
    """Mean cosine distance of each object to the others; 0.0 for a single one."""
    distance = pairwise_cosine_distance(object_features(view_features))
    return distance.sum(1) / max(len(distance) - 1, 1)


def vendi_score(view_features: Float[np.ndarray, "n v d"]) -> float:
    """Effective number of different objects, from 1 (all alike) to n (all orthogonal).

    exp of the entropy of the eigenvalues of K / n, K the cosine kernel (arXiv 2210.02410, eq. 2).
    """
    features = object_features(view_features)
    eigenvalues = np.linalg.eigvalsh(cosine_similarity(features, features) / len(features))
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(positive * np.log(positive)).sum()))
