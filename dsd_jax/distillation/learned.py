"""The network that VSD and ASD train beside the sample: an adapter of the prior, by Adam.

Letters as in schedule.py. Its training noises the sample afresh, at a timestep of its own, evenly
drawn from all.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from dsd_jax.distillation.common import noised
from dsd_jax.schedule import NoiseSchedule


class Learned(NamedTuple):
    """What a method trains; a pytree.

    Attributes:
        weights: of the adapter.
        opt_state: Adam's.
    """

    weights: Any
    opt_state: Any


def init(
    key: jax.Array, adapter: Callable[[jax.Array], Any], *, lora_rate: float = 1e-3
) -> Learned:
    """The state before the first step.

    Args:
        key: source of the adapter's random weights.
        adapter: key -> weights that leave the prior as it is.
        lora_rate: Adam's learning rate.
    """
    weights = adapter(key)
    return Learned(weights, optax.adam(lora_rate).init(weights))


def at_random_t(
    key: jax.Array, schedule: NoiseSchedule, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """z_t and eps, like x, and t: x at a random timestep 0 .. T-1."""
    t_key, noise_key = jax.random.split(key)
    t = jax.random.randint(t_key, (), 0, schedule.num_train_timesteps)
    return *noised(noise_key, schedule, x, t), t


def descend(
    state: Learned, loss: Callable[[Any], jax.Array], lora_rate: float
) -> tuple[Learned, dict[str, jax.Array]]:
    """One step of Adam on `loss` of the weights; logs it as "lora_loss"."""
    value, grads = jax.value_and_grad(loss)(state.weights)
    updates, opt_state = optax.adam(lora_rate).update(grads, state.opt_state, state.weights)
    return Learned(optax.apply_updates(state.weights, updates), opt_state), {"lora_loss": value}
