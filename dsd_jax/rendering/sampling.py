"""Where rays are sampled, and how long a piece of the ray each sample stands for.

Letters: r rays, s samples a ray, m bins of a proposal; t is distance along a ray of unit direction.

The estimator. Samples are t_i = F^-1(u_i) with u_i stratified in ((i) / s, (i + 1) / s) and F the
cumulative distribution of a density p(t) on [near, far]. Each stands for the length
delta_i = 1 / (s p(t_i)), so that for every p > 0

    E sum_i sigma(t_i) delta_i = integral of sigma from near to far:

the optical depth, also that of any part of the ray, is unbiased however samples are placed, and
for uniform p this is the usual stratified rule with delta = (far - near) / s. (Differences of
consecutive t_i would stretch the first sample inside matter over the empty space before it.)
With midpoints u_i = (i + 1/2) / s it is the midpoint rule in the variable u.

Where a field tells its density for less than its colours, samples are placed twice: many, of which
the density alone is asked, and then a few where matter was seen, as NeRF's fine samples and
mip-NeRF 360's (Barron et al. 2022, arXiv 2111.12077).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Interval = tuple[Float[Array, "r"], Float[Array, "r"]]

# When samples are placed twice: the part of them that there are the second time, and the share of
# those that lie wherever the first ones did.
_KEPT, _EVERYWHERE = 3 / 8, 0.2


def ray_box(origins: Float[Array, "r 3"], directions: Float[Array, "r 3"]) -> Interval:
    """(near, far) [r] of rays in the box [-1, 1]^3, not behind the origin; far = near if missed."""
    tiny = jnp.where(jnp.abs(directions) < 1e-12, 1e-12, directions)
    low, high = (-1 - origins) / tiny, (1 - origins) / tiny
    near = jnp.max(jnp.minimum(low, high), -1)
    far = jnp.min(jnp.maximum(low, high), -1)
    near = jnp.maximum(near, 0)
    return near, jnp.maximum(far, near)


def ray_ball(origins: Float[Array, "r 3"], directions: Float[Array, "r 3"]) -> Interval:
    """(near, far) [r] of rays in the unit ball, not behind the origin; far = near if missed."""
    closest = -jnp.sum(origins * directions, -1)
    height = jnp.sum(jnp.square(origins + closest[:, None] * directions), -1)
    half = jnp.sqrt(jnp.maximum(1 - height, 0))
    near = jnp.maximum(closest - half, 0)
    return near, jnp.maximum(closest + half, near)


def strata(key: jax.Array | None, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Stratified numbers of [0, 1), ascending along the last axis; midpoints if key is None."""
    samples = shape[-1]
    offset = 0.5 if key is None else jax.random.uniform(key, shape, dtype)
    return jnp.broadcast_to((jnp.arange(samples, dtype=dtype) + offset) / samples, shape)


def place_uniformly(
    near: Float[Array, "r"], far: Float[Array, "r"], u: Float[Array, "r s"]
) -> tuple[Float[Array, "r s"], Float[Array, "r s"]]:
    """Distances and lengths delta of samples with uniform p on [near, far]."""
    length = (far - near)[:, None]
    return near[:, None] + u * length, jnp.broadcast_to(length / u.shape[-1], u.shape)


def place_by_weights(
    near: Float[Array, "r"],
    far: Float[Array, "r"],
    u: Float[Array, "r s"],
    weights: Float[Array, "r m"],
) -> tuple[Float[Array, "r s"], Float[Array, "r s"]]:
    """Distances and lengths delta of samples with p piecewise constant, proportional to weights.

    weights must be positive; their m bins divide [near, far] evenly.
    """
    bins = weights.shape[-1]
    before = _exclusive_sum(weights)
    total = jnp.sum(weights, -1, keepdims=True)
    mass = u * total
    index = _how_many(before[:, 1:], mass)
    weight = jnp.take_along_axis(weights, index, -1)
    within = (mass - jnp.take_along_axis(before, index, -1)) / weight
    width = (far - near)[:, None] / bins
    distances = near[:, None] + (index + jnp.clip(within, 0, 1)) * width
    return distances, width * total / (weight * u.shape[-1])


def kept(samples: int) -> int:
    """How many there are the second time of so many samples."""
    return max(1, round(_KEPT * samples))


def where_seen(
    weights: Float[Array, "r m"], u: Float[Array, "r s"]
) -> tuple[Float[Array, "r s"], Float[Array, "r s"]]:
    """The u, and how much of [0, 1] each stands for, of samples where m strata have weights.

    A stratum counts as much as the heaviest of it and its neighbours, and all count a little:
    matter that lay between the first samples is found.
    """
    beside = jnp.pad(weights, ((0, 0), (1, 1)))
    heaviest = jnp.maximum(jnp.maximum(beside[:, :-2], beside[:, 2:]), weights)
    floor = jnp.mean(heaviest, -1, keepdims=True) * (_EVERYWHERE / (1 - _EVERYWHERE)) + 1e-6
    zero = jnp.zeros_like(weights[:, 0])
    return place_by_weights(zero, zero + 1, u, heaviest + floor)


def _how_many(ends: Float[Array, "r m"], mass: Float[Array, "r s"]) -> Int[Array, "r s"]:
    """How many of m ascending numbers are not above each of s. By bisection on a CPU, which takes
    a seventh of the time of comparing all (256 numbers); a GPU does the latter at once.
    """
    method = "scan" if jax.default_backend() == "cpu" else "compare_all"
    count = partial(jnp.searchsorted, side="right", method=method)
    return jax.vmap(count)(ends, mass)


def _exclusive_sum(x: Float[Array, "r m"]) -> Float[Array, "r m"]:
    """Sum of everything before each element. A product with a triangle: rows are short."""
    triangle = jnp.triu(jnp.ones((x.shape[-1],) * 2, x.dtype), 1)
    return jnp.matmul(x, triangle, precision="highest")
