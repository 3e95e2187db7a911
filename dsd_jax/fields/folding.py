"""`vmap` by concatenation, for functions that look points up in tables.

Letters: k tables, n points, S the axis that vmap adds.

`jax.vmap` turns a lookup in one table into a batched gather, and its derivative into a batched
scatter. On a CPU these take twice as long as the plain ones. A folded function is run once instead,
on S k tables and S n points, where each point knows the number of its table.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

# (tables: leaves [k, ...], points: leaves [n, ...], number uint32 [n] < k)
#   -> (leaves [k, ...], leaves [n, ...]); either may be an empty tuple
Lookup = Callable[[Any, Any, jax.Array], tuple[Any, Any]]


def folded(lookup: Lookup) -> Lookup:
    """The same function, run on stacked tables and concatenated points under `vmap`.

    Points must not influence one another. Reverse-mode derivatives of any order are folded, too.
    """

    @custom_vmap
    def run(tables, points, number):
        return lookup(tables, points, number)

    @run.def_vmap
    def rule(size, batched, tables, points, number):
        arguments = jax.tree.map(
            lambda is_batched, x: x if is_batched else jnp.broadcast_to(x, (size, *x.shape)),
            tuple(batched),
            (tables, points, number),
        )
        tables_each = jax.tree.leaves(arguments[0])[0].shape[1]
        first = np.arange(size, dtype=np.uint32)[:, None] * np.uint32(tables_each)
        tables, points, number = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:]), (*arguments[:2], arguments[2] + first)
        )
        results = jax.tree.map(
            lambda x: x.reshape(size, -1, *x.shape[1:]), run(tables, points, number)
        )
        return results, jax.tree.map(lambda _: True, results)

    @jax.custom_vjp
    def function(tables, points, number):
        return run(tables, points, number)

    def forward(tables, points, number):
        return function(tables, points, number), (tables, points, number)

    def backward(residuals, cotangents):
        tables, points, number = residuals

        def pull_back(tables, points, number):
            (tables, table_cotangents), (points, point_cotangents) = tables, points
            _, pullback = jax.vjp(lambda t, p: lookup(t, p, number), tables, points)
            return pullback((table_cotangents, point_cotangents))

        by_tables, by_points = folded(pull_back)(
            (tables, cotangents[0]), (points, cotangents[1]), number
        )
        return by_tables, by_points, None

    function.defvjp(forward, backward)
    return function
