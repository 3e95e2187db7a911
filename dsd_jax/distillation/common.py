"""Pieces that distillation methods share."""

from typing import Any

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


def missing(method: Any, name: str, what: str) -> ValueError:
    """The error of a method that cannot do without something of `Given`."""
    return ValueError(f"{type(method).__name__} needs given.{name}, {what}")
