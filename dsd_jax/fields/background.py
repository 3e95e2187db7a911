"""Backgrounds: functions of the viewing direction, directions [n, 3] -> rgb [n, 3] in [0, 1]."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from scipy.special import logit

# Of plain backgrounds, and what learned ones start from.
GREY = 0.8


def constant_background(colour) -> Callable[[jax.Array], jax.Array]:
    """The background of one fixed colour: a scalar (grey) or [3]."""
    return lambda directions: jnp.broadcast_to(
        jnp.asarray(colour, directions.dtype), directions.shape
    )


def random_colour(key: jax.Array) -> Float[Array, "3"]:
    """A uniformly random grey half of the time, else a uniformly random colour."""
    choice_key, colour_key = jax.random.split(key)
    colour = jax.random.uniform(colour_key, (3,))
    return jnp.where(jax.random.bernoulli(choice_key), colour, colour[0])


class LearnedColour(nn.Module):
    """One learnable colour for all directions; at the start the grey `initial`, within (0, 1)."""

    initial: float = GREY

    @nn.compact
    def __call__(self, directions: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        logits = self.param("logits", nn.initializers.constant(float(logit(self.initial))), (3,))
        return jnp.broadcast_to(nn.sigmoid(logits), directions.shape)


class DirectionalBackground(nn.Module):
    """A small environment map: spherical harmonics up to degree 2 -> one hidden layer -> colour.

    At the start it is the plain grey `initial`, within (0, 1).
    """

    initial: float = GREY
    width: int = 16

    @nn.compact
    def __call__(self, directions: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        x, y, z = directions[:, 0], directions[:, 1], directions[:, 2]
        basis = [jnp.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1]
        hidden = nn.relu(nn.Dense(self.width)(jnp.stack(basis, -1)))
        bias = nn.initializers.constant(float(logit(self.initial)))
        logits = nn.Dense(3, kernel_init=nn.initializers.zeros, bias_init=bias)(hidden)
        return nn.sigmoid(logits)
