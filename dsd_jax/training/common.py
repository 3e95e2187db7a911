"""Pieces shared by the training stages: learning rate, moving average, data-parallel step."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Params = Any
Stacks = dict[str, jax.Array]
_KERNEL = "kernel"


@struct.dataclass
class TrainState:
    """One training stage.

    Attributes:
        params: float32 weights, `stacked`.
        average: exponential moving average of `params`, what is exported.
        opt_state: optimiser state.
        step: [] int32, steps done.
    """

    params: Stacks
    average: Stacks
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


def draw_timesteps(key, num_train_timesteps: int, shape: tuple[int, ...]) -> jax.Array:
    """T u^0.75 for uniform u, int32 of `shape`.

    That favours the noisy end, where the shape, the pose and the obedience to the prompt are
    decided.
    """
    t = num_train_timesteps * jax.random.uniform(key, shape) ** 0.75
    return t.astype(jnp.int32)


def stacked(params: Params) -> Stacks:
    """The leaves of one shape as one array [leaves, ...]; kernels as matrices [..., outputs].

    What works on weights alone then has a tenth as many operations to be compiled.
    """
    leaves = jax.tree.leaves(params)
    return {
        name: jnp.stack([leaves[i].reshape(shape) for i in which])
        for name, (shape, which) in _layout(params).items()
    }


def unstacked(stacks: Stacks, like: Params) -> Params:
    """The tree that was `stacked`; of `like` only structure and shapes are read."""
    leaves, structure = jax.tree.flatten(like)
    for name, (_, which) in _layout(like).items():
        for i, leaf in zip(which, stacks[name], strict=True):
            leaves[i] = leaf.reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, leaves)


def _layout(params: Params) -> dict[str, tuple[tuple[int, ...], list[int]]]:
    """Each stack's name, the shape of what it holds, and the numbers of its leaves."""
    found: dict[str, tuple[tuple[int, ...], list[int]]] = {}
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        kind, shape = "other", leaf.shape
        if path[-1].key == _KERNEL:
            kind, shape = _KERNEL, (leaf.size // shape[-1], shape[-1])
        name = "_".join([kind, *map(str, shape)])
        found.setdefault(name, (shape, []))[1].append(i)
    return found


def optimiser(weight_decay: float = 0.01) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for kernels, AdamW for the rest, at the rate that the step gives.

    It works on weights that are `stacked`. Muon's steps have the size of Adam's (Liu et al. 2025,
    arXiv 2502.16982). Gradients are clipped to norm 1.
    """
    axes = optax.contrib.MuonDimensionNumbers(1, 2)  # of stacks [kernels, inputs, outputs]
    muon = optax.contrib.muon(
        1.0,
        weight_decay=weight_decay,
        muon_weight_dimension_numbers=lambda stacks: jax.tree.map(lambda _: axes, stacks),
        consistent_rms=0.2,
    )
    adam = optax.adamw(1.0, b1=0.9, b2=0.99, weight_decay=weight_decay, mask=_matrices)
    each = optax.partition({True: muon, False: adam}, _kernels)
    return optax.chain(optax.clip_by_global_norm(1.0), each, optax.scale(-1.0))


def _kernels(stacks: Stacks) -> dict[str, bool]:
    return {name: name.startswith(_KERNEL) for name in stacks}


def _matrices(stacks):
    return jax.tree.map(lambda leaf: leaf.ndim > 2, stacks)


def init_state(params: Params) -> TrainState:
    """Fresh state around given weights."""
    stacks = stacked(params)
    return TrainState(
        params=stacks,
        average=jax.tree.map(jnp.copy, stacks),
        opt_state=optimiser().init(stacks),
        step=jnp.zeros((), jnp.int32),
    )


class Step(NamedTuple):
    """A data-parallel training step, of programs that are compiled side by side.

    Attributes:
        gradients: of each loss, (stacks, step, data, constants, key) -> (gradient, metrics).
        update: (state, gradients, rate) -> (state, norm of their sum); the state is donated.
    """

    gradients: Sequence[Any]
    update: Any

    def compile(self, state: TrainState, data, constants, key) -> "Step":
        """This step for arguments of these shapes; each may be jax.ShapeDtypeStructs."""
        arguments = (state.params, state.step, data, constants, key)
        lowered = [gradient.lower(*arguments) for gradient in self.gradients]
        sums = [gradient.out_info[0] for gradient in lowered]
        lowered.append(self.update.lower(state, sums, np.float32(0)))
        with ThreadPoolExecutor(len(lowered)) as pool:
            *gradients, update = pool.map(lambda program: program.compile(), lowered)
        return Step(gradients, update)

    def __call__(self, state: TrainState, data, constants, key, rate):
        """(state, metrics) of one step at this learning rate.

        `data` is sharded along "data", the rest replicated; `state` is donated.
        """
        found = [each(state.params, state.step, data, constants, key) for each in self.gradients]
        state, norm = self.update(state, [gradient for gradient, _ in found], rate)
        return state, {k: v for _, seen in found for k, v in seen.items()} | {"gradient_norm": norm}


def make_step(
    mesh: Mesh, losses: Sequence[Callable], like: Params, max_decay: float = 0.9995
) -> Step:
    """A step down the sum of some losses.

    Args:
        mesh: devices along "data".
        losses: each (params, data, constants, key) -> (scalar, dict of scalars). It sees one
            device's share of `data` and draws its own batch from it.
        like: the weights, or their jax.ShapeDtypeStructs.
        max_decay: decay of the moving average once warm.
    """
    unstack, whole = partial(unstacked, like=like), NamedSharding(mesh, P())
    update = partial(_updated, max_decay=max_decay)
    return Step(
        [_gradient(mesh, loss, unstack, i) for i, loss in enumerate(losses)],
        jax.jit(update, donate_argnums=0, out_shardings=whole),
    )


def _gradient(mesh: Mesh, loss: Callable, unstack: Callable, index: int) -> Callable:
    """(stacks, step, data, constants, key) -> (their gradient, metrics) of one loss, jitted."""

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P(), P("data"), P(), P()),
        out_specs=(P(), P()),
        check_vma=False,
    )
    def gradient(stacks, step, data, constants, key):
        for number in (step, index, jax.lax.axis_index("data")):
            key = jax.random.fold_in(key, number)
        (_, seen), grads = jax.value_and_grad(
            lambda stacks: loss(unstack(stacks), data, constants, key), has_aux=True
        )(stacks)
        return jax.lax.pmean((grads, seen), "data")

    return gradient


def _updated(state: TrainState, gradients: list[Stacks], rate, max_decay: float):
    """The state after the gradients' sum, and its norm."""
    grads = jax.tree.map(lambda *each: sum(each), *gradients)
    updates, opt_state = optimiser().update(grads, state.opt_state, state.params)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    decay = jnp.minimum(max_decay, (1.0 + state.step) / (10.0 + state.step))
    average = jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), state.average, params)
    return TrainState(params, average, opt_state, state.step + 1), optax.global_norm(grads)
