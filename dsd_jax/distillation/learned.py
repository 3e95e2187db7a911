"""The network that VSD and ASD train beside the sample: an adapter of the prior, by Adam.

Letters as in schedule.py. Its training noises the sample afresh, at a timestep of its own, evenly
drawn from all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import optax

from dsd_jax.checks import at_least, positive
from dsd_jax.distillation.base import Method
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


@dataclass(frozen=True)
class TrainedMethod(Method):
    """A method that trains a low-rank copy of the prior; it has `update` besides `gradient`."""

    lora_rank: int = 4
    """Rank of the low-rank copy of the UNet that is trained for each seed."""
    lora_rate: float = 1e-3
    """Adam's learning rate for it. The papers' is 1e-4, for runs of 25,000 steps."""

    trains: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "method", 1, "lora_rank")
        positive(self, "method", "lora_rate")

    def init(self, key: jax.Array, adapter: Callable[[jax.Array], Any]) -> Learned:
        """The state before the first step, see `Method.init`."""
        weights = adapter(key)
        return Learned(weights, optax.adam(self.lora_rate).init(weights))

    def descend(
        self, state: Learned, loss: Callable[[Any], jax.Array]
    ) -> tuple[Learned, dict[str, jax.Array]]:
        """One step of Adam on `loss` of the weights; logs it as "lora_loss"."""
        value, grads = jax.value_and_grad(loss)(state.weights)
        adam = optax.adam(self.lora_rate)
        updates, opt_state = adam.update(grads, state.opt_state, state.weights)
        weights = optax.apply_updates(state.weights, updates)
        return Learned(weights, opt_state), {"lora_loss": value}


def at_random_t(
    key: jax.Array, schedule: NoiseSchedule, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """z_t and eps, like x, and t: x at a random timestep 0 .. T-1."""
    t_key, noise_key = jax.random.split(key)
    t = jax.random.randint(t_key, (), 0, schedule.num_train_timesteps)
    return *noised(noise_key, schedule, x, t), t
