"""The state of one seed's optimisation: one pytree, all of it a function of (seed, recipe, step).

Every random number of a seed comes from `fold_in(key(seed), ...)` of its own seed, so that a seed
knows nothing of its companions. Stack states for several seeds.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, UInt

from dsd_jax.fields.base import Field
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.rendering import occupancy

# Numbers folded into a seed's key beside its steps 0, 1, 2, ...: far above any step.
_NOISE, _PARAMS, _METHOD = 2**32 - 1, 2**32 - 2, 2**32 - 3
GROUPS = ("grid", "mlp", "background")
# Of parameters that no step changes.
FIXED = "fixed"


@struct.dataclass
class State:
    """One seed.

    Attributes:
        seed: the seed itself; all its randomness derives from it.
        step: steps done.
        seed_noise: [h, w, c] or [views, h, w, c], where the seed's ODE starts; never changes.
        params: {"field": ..., "background": ...}
        opt_state: of `optimiser`.
        occupancy: where there may be matter.
        method: of the network that the method trains beside, None where it trains none.
        targets: of the refinement, see `targets.Targets`; None where nothing is refined.
        ode: the seed's `kept_ode.KeptOde` where the run keeps one; a function of the rest, so no
            part of a checkpoint.
        frozen: whether a step's numbers were not finite, see `kept_finite`.
    """

    seed: UInt[Array, ""]
    step: Int[Array, ""]
    seed_noise: Float[Array, "*views h w c"]
    params: Any
    opt_state: Any
    occupancy: occupancy.OccupancyGrid
    method: Any = None
    targets: Any = None
    ode: Any = None
    frozen: Any = None


# One step of one seed, given what all share: the state after it, and metrics [] each.
Step = Callable[[State, Any], tuple[State, dict[str, Array]]]


def step_key(seed, step) -> jax.Array:
    """The key from which step `step` of seed `seed` draws."""
    return jax.random.fold_in(jax.random.key(seed), step)


def noise_key(seed) -> jax.Array:
    """The key from which the noise that seed `seed` keeps for its whole life is drawn."""
    return jax.random.fold_in(jax.random.key(seed), _NOISE)


def method_key(seed) -> jax.Array:
    """The key from which the network that a method trains for seed `seed` starts."""
    return jax.random.fold_in(jax.random.key(seed), _METHOD)


def seed_noise(seed, shape: tuple[int, ...], views: int = 1, own: bool = False) -> jax.Array:
    """The seed's noise, unit Gaussian: `shape`, or [views, *shape] with several views.

    All views have the noise that a single view has, or, with `own`, each its own.
    """
    key = noise_key(seed)
    if views == 1:
        return jax.random.normal(key, shape)
    if own:
        return jax.random.normal(key, (views, *shape))
    return jnp.broadcast_to(jax.random.normal(key, shape), (views, *shape))


def noise_of(seed, shape: tuple[int, ...], recipe: Recipe) -> jax.Array:
    """`seed_noise` under a recipe."""
    return seed_noise(seed, shape, recipe.camera.views, recipe.view_noise == "own")


def init_state(
    seed,
    latent_shape: tuple[int, ...],
    recipe: Recipe,
    method: Callable[[jax.Array], Any] = lambda key: None,
    targets: Any = None,
    shape: Float[Array, "g g g"] | None = None,
) -> State:
    """The state of one seed before its first step; vmap over seeds for several.

    Args:
        method: key -> what the method trains, see `method_step.initial`.
        targets: place of what the refinement fits to, see `targets.no_targets`.
        shape: distance of the shape that a recipe `presets.of_shape` keeps.
    """
    seed = jnp.asarray(seed, jnp.uint32)
    params = recipe.scene.init(jax.random.fold_in(jax.random.key(seed), _PARAMS))
    if shape is not None:
        field: Any = recipe.field
        params["field"] = field.holding(params["field"], shape)
    return State(
        seed=seed,
        step=jnp.zeros((), jnp.int32),
        seed_noise=noise_of(seed, latent_shape, recipe),
        params=params,
        opt_state=optimiser(recipe).init(params),
        occupancy=occupancy.init(recipe.render.occupancy_resolution),
        method=method(method_key(seed)),
        targets=targets,
        frozen=jnp.zeros((), bool),
    )


def kept_finite(step: Step) -> Step:
    """A step of one seed after which it is as before where its numbers are not finite.

    It stays so, and its loss is nan from then on. Loss and norm of the gradient tell of the whole
    gradient, so that nothing is read twice.
    """

    def _step(state: State, shared: Any) -> tuple[State, dict[str, Array]]:
        after, metrics = step(state, shared)
        fine = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"]) & ~state.frozen
        moved, still = ((s.params, s.opt_state, s.method) for s in (after, state))
        kept = jax.tree.map(lambda new, old: jnp.where(fine, new, old), moved, still)
        params, opt_state, method = kept
        metrics = {**metrics, "loss": jnp.where(fine, metrics["loss"], jnp.nan)}
        return dataclasses.replace(
            after, params=params, opt_state=opt_state, method=method, frozen=~fine
        ), metrics

    return _step


def without_ode(state: State) -> State:
    """What a checkpoint holds of a state, or of several: the rest is built from it anew."""
    return dataclasses.replace(state, ode=None)


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """Adam with one learning rate each for hash tables, MLP and background."""
    rates = {name: getattr(recipe.optimise, f"{name}_rate") for name in GROUPS}
    return grouped_adam(recipe, rates, recipe.steps, recipe.optimise.final_rate)


def grouped_adam(
    recipe: Recipe, rates: Mapping[str, float], steps: int, final: float
) -> optax.GradientTransformation:
    """Adam whose learning rates fall along a cosine, within so many steps, to `final` of them.

    Args:
        rates: of each of `GROUPS`.
    """
    numbers = recipe.optimise

    def adam(rate):
        schedule = optax.cosine_decay_schedule(rate, steps, alpha=final)
        return optax.adam(schedule, numbers.beta1, numbers.beta2, numbers.adam_eps)

    each: dict[Hashable, optax.GradientTransformation] = {n: adam(r) for n, r in rates.items()}
    each[FIXED] = optax.set_to_zero()
    return optax.multi_transform(each, lambda params: _groups(recipe.scene.field, params))


def _groups(field: Field, params: Any) -> Any:
    """Which learning rate each leaf of the params has."""
    background = jax.tree.map(lambda leaf: "background", params["background"])
    return {"field": field.parameter_groups(params["field"]), "background": background}
