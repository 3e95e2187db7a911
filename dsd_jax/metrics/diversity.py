"""How different a set of objects is, in the feature space of `metrics.efficientnet`.

Letters: n objects (or seeds), v views, d features. Distances are cosine distances 1 - cos of
uncentred features; the features of an object are the mean over its views. Rows are scaled on the
host in float64, sums over pairs are jitted.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


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
    return np.asarray(_distances(unit(features)))


def diversity(view_features: Float[np.ndarray, "n v d"]) -> float:
    """Mean cosine distance over all pairs of different objects; 0.0 for a single one."""
    return float(per_object_diversity(view_features).mean())


def per_object_diversity(view_features: Float[np.ndarray, "n v d"]) -> Float[np.ndarray, "n"]:
    """Mean cosine distance of each object to the others; 0.0 for a single one."""
    distance = pairwise_cosine_distance(object_features(view_features))
    return distance.sum(1, dtype=np.float64) / max(len(distance) - 1, 1)


def vendi_score(view_features: Float[np.ndarray, "n v d"]) -> float:
    """Effective number of different objects, from 1 (all alike) to n (all orthogonal).

    exp of the entropy of the eigenvalues of K / n, K the cosine kernel (arXiv 2210.02410, eq. 2).
    """
    return float(_vendi_score(unit(object_features(view_features))))


@jax.jit
def _distances(rows: Float[Array, "n d"]) -> Float[Array, "n n"]:
    """1 - cos between rows of length 1, in [0, 2], and 0 on the diagonal."""
    apart = 1 - jnp.eye(len(rows))
    return apart * jnp.clip(1 - jnp.matmul(rows, rows.T, precision="highest"), 0, 2)


@jax.jit
def _vendi_score(rows: Float[Array, "n d"]) -> Float[Array, ""]:
    """`vendi_score` of rows of length 1."""
    kernel = jnp.matmul(rows, rows.T, precision="highest")
    shares = jnp.linalg.eigvalsh(kernel / len(rows))
    shares = jnp.where(shares > 1e-6, shares, 1.0)  # what is left of 0 after rounding counts as 0
    return jnp.exp(-jnp.sum(shares * jnp.log(shares)))
