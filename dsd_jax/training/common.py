"""Pieces shared by the two training stages: learning rate, moving average, data-parallel step."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Params = Any


@struct.dataclass
class TrainState:
    """One training stage.

    Attributes:
        params: float32 weights.
        average: exponential moving average of `params`, what is exported.
        opt_state: optimiser state.
        step: [] int32, steps done.
    """

    params: Params
    average: Params
    opt_state: Any
    step: jax.Array


def data_mesh() -> Mesh:
    """All local devices along one axis, "data"."""
    return Mesh(jax.devices(), ("data",))


def shard_objects(mesh: Mesh, tree):
    """Put arrays on the mesh, split along their first axis (whose length divides evenly)."""
    return jax.device_put(tree, NamedSharding(mesh, P("data")))


def shapes_of(mesh: Mesh, tree):
    """`shard_objects` for compiling ahead: a jax.ShapeDtypeStruct with its sharding a leaf."""
    sharding = NamedSharding(mesh, P("data"))
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)


def replicate(mesh: Mesh, tree):
    """Put a copy of the arrays on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def learning_rate(progress: float, step: int, peak: float, warmup_steps: int = 300) -> float:
    """Linear warm-up in steps, then a cosine in `progress` (0..1) down to 2 % of the peak."""
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return peak * cosine * min(1.0, (step + 1) / warmup_steps)


def optimiser(weight_decay: float = 0.01) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for kernels, AdamW for the rest, at the rate that the step gives.

    Muon's steps have the size of Adam's (Liu et al. 2025, arXiv 2502.16982). Gradients are clipped
    to norm 1.
    """
    axes = optax.contrib.MuonDimensionNumbers(1, 2)  # of stacks [kernels, inputs, outputs]
    muon = optax.contrib.muon(
        1.0,
        weight_decay=weight_decay,
        muon_weight_dimension_numbers=lambda stacks: jax.tree.map(lambda _: axes, stacks),
        consistent_rms=0.2,
    )
    adam = optax.adamw(1.0, b1=0.9, b2=0.99, weight_decay=weight_decay, mask=_matrices)
    each = optax.partition({True: _stacked(muon), False: adam}, _kernels)
    return optax.chain(optax.clip_by_global_norm(1.0), each, optax.scale(-1.0))


def _kernels(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _matrices(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _stacked(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """`transform` of all kernels [..., inputs, outputs] of one size at once, as stacked matrices.

    That compiles to a tenth as many operations.
    """

    def sizes(leaves: list[jax.Array]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for i, leaf in enumerate(leaves):
            found.setdefault(f"{leaf.size} / {leaf.shape[-1]}", []).append(i)
        return found

    def stack(tree) -> dict[str, jax.Array]:
        leaves = jax.tree.leaves(tree)
        matrices = [leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves]
        return {
            size: jnp.stack([matrices[i] for i in which]) for size, which in sizes(leaves).items()
        }

    def update(updates, state, params=None):
        stepped: Any
        stepped, state = transform.update(stack(updates), state, stack(params))
        leaves, structure = jax.tree.flatten(updates)
        for size, which in sizes(leaves).items():
            for i, matrix in zip(which, stepped[size], strict=True):
                leaves[i] = matrix.reshape(leaves[i].shape)
        return jax.tree.unflatten(structure, leaves), state

    return optax.GradientTransformation(lambda params: transform.init(stack(params)), update)


def init_state(params: Params) -> TrainState:
    """Fresh state around given weights."""
    return TrainState(
        params=params,
        average=jax.tree.map(jnp.copy, params),
        opt_state=optimiser().init(params),
        step=jnp.zeros((), jnp.int32),
    )


def make_step(mesh: Mesh, loss: Callable, max_decay: float = 0.9995) -> Callable:
    """Compiled data-parallel training step.

    Args:
        mesh: devices along "data".
        loss: (params, data, constants, key) -> (scalar, dict of scalars). It sees one device's
            share of `data` and draws its own batch from it.
        max_decay: decay of the moving average once warm.

    Returns:
        (state, data, constants, key, rate) -> (state, metrics), jitted. `data` is sharded along
        "data", the rest replicated; `state` is donated.
    """

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P("data"), P(), P()),
        out_specs=(P(), P()),
        check_vma=False,
    )
    def gradient(params, data, constants, key):
        key = jax.random.fold_in(key, jax.lax.axis_index("data"))
        (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(params, data, constants, key)
        return jax.lax.pmean((grads, aux), "data")

    @partial(jax.jit, donate_argnums=0, out_shardings=NamedSharding(mesh, P()))
    def step(state: TrainState, data, constants, key, rate):
        key = jax.random.fold_in(key, state.step)
        grads, metrics = gradient(state.params, data, constants, key)
        updates, opt_state = optimiser().update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        decay = jnp.minimum(max_decay, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), state.average, params)
        metrics["gradient_norm"] = optax.global_norm(grads)
        return TrainState(params, average, opt_state, state.step + 1), metrics

    return step
