"""Pieces that distillation methods share."""

import jax
import jax.numpy as jnp


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
