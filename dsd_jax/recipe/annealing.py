"""How the timestep t falls over an optimisation.

Letters: p = step / steps is the progress, from 0 to 1. All functions take a traced step.
"""

import jax
import jax.numpy as jnp

from dsd_jax.recipe.recipe import Recipe
from dsd_jax.schedule import NoiseSchedule


def t_fraction(
    step, steps: int, start: float = 0.98, end: float = 0.32, *, linear: bool = False
) -> jax.Array:
    """Noise level as a fraction of T: (start - end)(1 - sqrt(p)) + end, the authors' schedule.

    It falls fast at first and slowly later; `linear` puts p in the place of sqrt(p). Steps
    outside 0 .. steps count as the nearer end.
    """
    progress = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
    progress = progress if linear else jnp.sqrt(progress)
    return (start - end) * (1.0 - progress) + end


def timestep(
    step,
    steps: int,
    start: float = 0.98,
    end: float = 0.32,
    *,
    linear: bool = False,
    num_train_timesteps: int = 1000,
) -> jax.Array:
    """`t_fraction` as an integer timestep, rounded, within 0 .. T-1."""
    fraction = t_fraction(step, steps, start, end, linear=linear)
    t = jnp.round(fraction * num_train_timesteps).astype(jnp.int32)
    return jnp.clip(t, 0, num_train_timesteps - 1)


def run_timestep(step, recipe: Recipe, schedule: NoiseSchedule) -> jax.Array:
    """`timestep` of a run by this recipe, for a prior with this schedule."""
    numbers = recipe.optimise
    return timestep(
        step,
        recipe.steps,
        numbers.t_max,
        numbers.t_min,
        linear=numbers.annealing == "linear",
        num_train_timesteps=schedule.num_train_timesteps,
    )


def progress(step, recipe: Recipe) -> jax.Array:
    """p: part of the steps that are done, 0 .. 1, float32; and above 1 that of the refinement's."""
    step = jnp.asarray(step, jnp.float32)
    refining = jnp.maximum(step - recipe.steps, 0) / max(recipe.total_steps - recipe.steps, 1)
    return jnp.minimum(step / recipe.steps, 1) + refining
