"""Low-rank adapters of a UNet's attention (LoRA, Hu et al. 2021, arXiv 2106.09685).

Every projection W [in, out] of its attentions (to_q, to_k, to_v, to_out) becomes

    W + A B,    A [in, r] Gaussian of variance 1 / in,    B [r, out] zero at the start.

Pure functions on trees of parameters: an adapter is a tree of the same nesting in which a
projection is {"a": A, "b": B} and all else is left out.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out_0")


def init(key: jax.Array, params: Any, rank: int) -> Any:
    """An adapter that changes nothing yet, float32.

    Args:
        params: of a UNet; only shapes are looked at.
        rank: r.

    Raises:
        ValueError: there is no attention to adapt.
    """
    shapes = _projections(params)
    if not shapes:
        raise ValueError("the prior's UNet has no attention, which is what the method trains")
    sizes = [size * rank for size, _ in shapes.values()]
    # One draw serves all: a draw for each takes long to compile.
    parts = jnp.split(jax.random.normal(key, (sum(sizes),)), _ends(sizes)[:-1])
    tree: dict[str, Any] = {}
    for (path, (size, features)), part in zip(shapes.items(), parts, strict=True):
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        node["a"] = part.reshape(size, rank) / math.sqrt(size)
        node["b"] = jnp.zeros((rank, features))
    return tree


def merge(params: Any, adapter: Any) -> Any:
    """The UNet's parameters with W + A B for W, in W's type."""
    if set(adapter) == {"a", "b"}:
        kernel = params["kernel"]
        added = jnp.matmul(adapter["a"], adapter["b"], precision="highest")
        return {**params, "kernel": (kernel.astype(added.dtype) + added).astype(kernel.dtype)}
    return {**params, **{name: merge(params[name], part) for name, part in adapter.items()}}


def merged_size(params: Any) -> int:
    """Bytes of the kernels that `merge` makes anew."""
    kernels = [_at(params, path)["kernel"] for path in _projections(params)]
    return sum(math.prod(kernel.shape) * kernel.dtype.itemsize for kernel in kernels)


def _projections(params: Any) -> dict[tuple[str, ...], tuple[int, int]]:
    """(in, out) of each projection, by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    paths = [(tuple(entry.key for entry in path), leaf) for path, leaf in leaves]
    return {
        path[:-1]: leaf.shape
        for path, leaf in paths
        if path[-1] == "kernel" and path[-2] in PROJECTIONS
    }


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _ends(sizes: list[int]) -> list[int]:
    """Where each of consecutive parts ends."""
    return [sum(sizes[: i + 1]) for i in range(len(sizes))]
