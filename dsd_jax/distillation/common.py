"""Pieces that distillation methods share."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from dsd_jax.schedule import NoiseSchedule

ViewNoise = Literal["shared", "own", "attached"]


class Method(NamedTuple):
    """A distillation method, see `distillation` for the signatures.

    Attributes:
        gradient: what the prior wants of a sample.
        init: state of the network that the method trains beside, None where it trains none.
        update: one training step of that state.
        view_noise: where the noise of a view comes from, if `Settings.view_noise` does not say.
    """

    gradient: Callable
    init: Callable | None = None
    update: Callable | None = None
    view_noise: ViewNoise = "shared"


def taken(function: Callable, offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the offered keywords that a function takes."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in offered.items() if name in names}


def noised(
    key: jax.Array, schedule: NoiseSchedule, x: jax.Array, t: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """z_t = alpha_t x + sigma_t eps with new eps, and eps: like x, at least float32, constants."""
    x = jax.lax.stop_gradient(x)
    eps = jax.random.normal(key, x.shape, jnp.promote_types(x.dtype, jnp.float32))
    return schedule.add_noise(x, eps, t), eps


def with_fresh(key: jax.Array, eps: jax.Array, share: jax.Array | float) -> jax.Array:
    """eps [...] with a share of new noise: sqrt(1 - share^2) eps + share N(0, 1).

    Of unit variance if eps is, as DDIM's eta mixes noise into a step (arXiv 2010.02502, eq. 16).
    """
    fresh = jax.random.normal(key, eps.shape, eps.dtype)
    return jnp.sqrt(1 - jnp.square(share)) * eps + share * fresh


def result(grad: jax.Array, x: jax.Array, **logged) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a method returns: the gradient in x's type and what it logs, without derivatives."""
    aux = {"gradient_norm": jnp.linalg.norm(grad), **logged}
    return jax.lax.stop_gradient((grad.astype(x.dtype), aux))
