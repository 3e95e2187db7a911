"""A view in parts, one after another, so that what is computed at a time fits a device.

Letters: h w pixels, r rays, n points.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Points of a view that a step computes at a time: what their backward pass keeps has to fit a
# device for every seed on it.
MOST_POINTS = 2**18


def chunk_within(points: int, height: int, points_a_row: int) -> int:
    """A `chunk` for `render`: the most rows that divide height and hold at most so many points."""
    most = min(max(1, points // points_a_row), height)
    return next(rows for rows in range(most, 0, -1) if height % rows == 0)


def step_chunk(side: int, samples_per_ray: int) -> int:
    """The `chunk` of a step's view of side x side pixels: at most `MOST_POINTS` points."""
    return chunk_within(MOST_POINTS, side, side * samples_per_ray)


def in_chunks(block, inputs: list[Array], chunks: int):
    """`block` of inputs with leading axis r, so many equal parts of it one after another."""
    split = [x.reshape(chunks, -1, *x.shape[1:]) for x in inputs]
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.map(block, split))


def where_met(block, met, inputs: list[Array], chunks: int):
    """The same, but only in chunks of rays of which one is met [r]; nothing but background else."""
    order = jnp.argsort(~met, stable=True)

    def part(inputs):
        met, *rays = inputs
        return jax.lax.cond(met.any(), block, lambda rays: block(rays, _nothing), rays)

    sorted_flat = in_chunks(part, [x[order] for x in (met, *inputs)], chunks)
    back = jnp.argsort(order)
    return jax.tree.map(lambda x: x[back], sorted_flat)


def _nothing(points: Float[Array, "n 3"]) -> tuple[Float[Array, "n"], Float[Array, "n 3"]]:
    """A field without matter."""
    return jnp.zeros_like(points[:, 0]), jnp.zeros_like(points)
