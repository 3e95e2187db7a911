"""Pieces that distillation methods share."""

import math
from typing import Any, get_args

import jax
import jax.numpy as jnp

from dsd_jax.schedule import NoiseSchedule


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
    logs = {"gradient_norm": jnp.linalg.norm(grad), **logged}
    return jax.lax.stop_gradient((grad.astype(x.dtype), logs))


# ---- what a method refuses: each raises a ValueError that names the flag ------------------------


def at_least(method: Any, least: int, *names: str) -> None:
    """Refuse numbers of a method below `least`."""
    for name in names:
        value = getattr(method, name)
        if not value >= least:
            raise ValueError(f"{_flag(name)} must be at least {least}, not {value}")


def at_most(method: Any, most: int, *names: str) -> None:
    """Refuse numbers of a method above `most`."""
    for name in names:
        value = getattr(method, name)
        if value > most:
            raise ValueError(f"{_flag(name)} must be at most {most}, not {value}")


def positive(method: Any, *names: str) -> None:
    """Refuse numbers of a method that are not above 0, or not finite."""
    for name in names:
        value = getattr(method, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{_flag(name)} must be positive, not {value}")


def fractions(method: Any, *names: str) -> None:
    """Refuse numbers of a method outside 0 .. 1; None passes."""
    for name in names:
        value = getattr(method, name)
        if not 0 <= (value or 0) <= 1:
            raise ValueError(f"{_flag(name)} must lie in 0..1, not {value}")


def one_of(method: Any, name: str, choices: Any) -> None:
    """Refuse a word that is not among those of a Literal."""
    value = getattr(method, name)
    if value not in get_args(choices):
        raise ValueError(f"{_flag(name)} {value!r} is not one of {', '.join(get_args(choices))}")


def missing(method: Any, name: str, what: str) -> ValueError:
    """The error of a method that cannot do without something of `Given`."""
    return ValueError(f"{type(method).__name__} needs given.{name}, {what}")


def _flag(name: str) -> str:
    return "--method." + name.replace("_", "-")
