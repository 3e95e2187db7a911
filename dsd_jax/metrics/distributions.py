"""Distances between two sets of features, and how much of one the other covers.

Letters: n features to judge, m of the reference, d of a feature, k-th nearest neighbours. Features
are rows [n, d] of any network (see `features.py`): say with the number which one gave them. All
functions are jitted, and compute in the type of their arguments, at least float32.

A Frechet distance by the square root of a [d, d] covariance needs float64: with fewer samples than
features most of its eigenvalues are 0, and the square root makes of a rounding error of 1e-7 one of
3e-4, d times. Here it is the sum of singular values of the product of two samples, which no square
root is taken of, so that float32 gives five digits of the sum of both variances.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Coverage(NamedTuple):
    """How two sets overlap, by balls that reach to the k-th neighbour of their own set.

    Attributes:
        precision: share of the samples inside a ball of the reference, 0 .. 1.
        recall: share of the reference inside a ball of the samples, 0 .. 1.
        density: mean number of the reference's balls that a sample is in, over k; 1 on average for
            samples of the same distribution, and not bounded.
        coverage: share of the reference whose ball holds a sample, 0 .. 1.
    """

    precision: Float[Array, ""]
    recall: Float[Array, ""]
    density: Float[Array, ""]
    coverage: Float[Array, ""]


@jax.jit
def frechet_distance(
    samples: Float[Array, "n d"], reference: Float[Array, "m d"]
) -> Float[Array, ""]:
    """Squared Frechet distance of the Gaussians with the sets' means and (unbiased) covariances,

        |mu_a - mu_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2))    (Heusel et al. 2017, 1706.08500).

    With C_a = A^T A and C_b = B^T B the last trace is the sum of singular values of A B^T. Few
    samples make it too large: compare numbers of sets that are equally large. Raises ValueError
    for fewer than two samples in either set.
    """
    (mean_a, root_a), (mean_b, root_b) = _moments(samples), _moments(reference)
    mixed = jnp.linalg.svd(_products(root_a, root_b), compute_uv=False).sum()
    spread = jnp.sum(jnp.square(root_a)) + jnp.sum(jnp.square(root_b)) - 2 * mixed
    return jnp.sum(jnp.square(mean_a - mean_b)) + jnp.maximum(spread, 0.0)


def _moments(features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean [d], and A [min(n, d), d] with A^T A the covariance."""
    features, n, d = _floats(features), *features.shape
    if n < 2:
        raise ValueError(f"a covariance needs at least two samples, not {n}")
    mean = features.mean(0)
    root = (features - mean) / jnp.sqrt(n - 1.0)
    return mean, root if n <= d else jnp.linalg.qr(root, mode="r")


@partial(jax.jit, static_argnames="paired")
def kernel_distance(
    samples: Float[Array, "n d"], reference: Float[Array, "m d"], paired: bool = False
) -> Float[Array, ""]:
    """Unbiased squared maximum mean discrepancy under the kernel (x . y / d + 1)^3.

    Kernel and estimator are those that Binkowski et al. 2018 (arXiv 1801.01401) propose for
    Inception's features, over all samples at once. As it is unbiased it is 0 on average for equal
    distributions, and may be negative.

    Where row i of both sets is of one seed the rows are not independent. With `paired` no row is
    compared with its own partner (Gretton et al. 2012, JMLR 13, eq. 5): then the distance of a set
    to itself is 0. Raises ValueError for fewer than two samples, or pairs of unequal sets.
    """
    samples, reference = _floats(samples), _floats(reference)
    n, m = len(samples), len(reference)
    if min(n, m) < 2 or (paired and n != m):
        raise ValueError("a kernel distance needs at least two samples in each set, and as many "
                         "in both where they are paired")  # fmt: skip

    def kernel(a, b):
        return (_products(a, b) / a.shape[1] + 1) ** 3

    def off_diagonal(values):
        return (values.sum() - jnp.trace(values)) / (len(values) * (len(values) - 1))

    across = kernel(samples, reference)
    within = off_diagonal(kernel(samples, samples)) + off_diagonal(kernel(reference, reference))
    return within - 2 * (off_diagonal(across) if paired else across.mean())


@partial(jax.jit, static_argnames="k")
def coverage(samples: Float[Array, "n d"], reference: Float[Array, "m d"], k: int = 3) -> Coverage:
    """Precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 1 and 2), and density
    and coverage (Naeem et al. 2020, arXiv 2002.09797).

    Balls are closed and Euclidean. The papers take k = 3 and k = 5, and thousands of samples.
    Raises ValueError where a set has no k-th neighbours: k must be from 1 to its size - 1.
    """
    samples, reference = _floats(samples), _floats(reference)
    if not 1 <= k < min(len(samples), len(reference)):
        raise ValueError(f"k must be from 1 to the size of the smaller set - 1, not {k}")
    apart = _distances(samples, reference)
    in_reference = apart <= _kth(reference, k)
    in_samples = apart <= _kth(samples, k)[:, None]
    return Coverage(
        precision=in_reference.any(1).mean(),
        recall=in_samples.any(0).mean(),
        density=in_reference.sum(1).mean() / k,
        coverage=in_reference.any(0).mean(),
    )


def _kth(features: jax.Array, k: int) -> jax.Array:
    """Squared distance of each row to the k-th nearest other row, [n]."""
    return jnp.sort(_distances(features, features), 1)[:, k]


def _distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Squared distances [n, m] from differences, one row of a at a time: equal rows are at 0."""
    return jax.lax.map(lambda row: jnp.sum(jnp.square(row - b), 1), a)


def _products(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b^T, at full precision also where TF32 or bfloat16 is usual."""
    return jnp.matmul(a, b.T, precision="highest")


def _floats(features: jax.Array) -> jax.Array:
    return jnp.asarray(features, jnp.promote_types(features.dtype, jnp.float32))
