"""A piece of work that can be timed: a compiled program, its inputs, and what it has to do.

Letters: n seeds.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp

from dsd_jax.models import attention


class Ready(NamedTuple):
    """Work that is compiled and has its inputs.

    Attributes:
        call: does it once and returns arrays to wait for; may be called again.
        operations, bytes: floating-point operations of one unit, and the fewest bytes that have to
            be read and written for it.
        units: how often a call does the work.
    """

    call: Callable[[], Any]
    operations: float
    bytes: float
    units: int = 1


class Work(NamedTuple):
    """One line of the table.

    Attributes:
        prepare: compiles, makes inputs; what it holds is freed with what it returns.
    """

    name: str
    size: str
    prepare: Callable[[], Ready]


def program(function: Callable, *arguments) -> Ready:
    """The compiled function; bytes are those of its arguments and results, each once."""
    lowered = jax.jit(function).lower(*arguments)
    compiled = lowered.compile()
    moved = size_of(arguments) + size_of(lowered.out_info)
    return Ready(lambda: compiled(*arguments), operations(function, *arguments), moved)


def per_unit(ready: Ready, units: int) -> Ready:
    """The same call, done for `units` units."""
    return ready._replace(
        operations=ready.operations / units, bytes=ready.bytes / units, units=units
    )


def operations(function: Callable, *arguments) -> float:
    """Floating-point operations as XLA counts them before it optimises; a loop's body counts once.

    The CPU's compiler counts, as the plugins of accelerators count nothing before they compile. It
    cannot look into cuDNN's attention, so that attention is plain products here.
    """
    shapes = jax.eval_shape(lambda *inputs: inputs, *arguments)
    plain = mock.patch.object(attention, "implementation", lambda *_: "xla")
    with plain, jax.default_device(jax.devices("cpu")[0]):
        lowered = jax.jit(lambda *inputs: function(*inputs)).lower(*shapes)
    counted = lowered.cost_analysis()
    assert counted is not None
    return float(counted["flops"])


def size_of(tree) -> int:
    """Bytes of the arrays, or of the shapes, in a tree."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in leaves)


def normal(seed: int, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Standard normal numbers."""
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def plural(n: int) -> str:
    """1 -> "1 seed", 2 -> "2 seeds"."""
    return f"{n} seed{'s' * (n > 1)}"


def ceilings(side: int, copied: int, dtype) -> list[Work]:
    """A product of matrices, a copy of float32 numbers, and a program that does nothing."""
    shape = (side, side)

    def product():
        x, y = normal(0, shape, dtype), normal(1, shape, dtype)
        ready = program(jnp.matmul, x, y)
        return ready._replace(operations=2.0 * side**3)

    return [
        Work("matrix product", f"{side}, {jnp.dtype(dtype).name}", product),
        Work("copy", f"{4 * copied / 1e6:.0f} MB",
             lambda: program(jnp.negative, normal(0, (copied,)))),
        Work("empty program", "", lambda: program(jnp.negative, jnp.zeros(()))),
    ]  # fmt: skip
