"""The state of one seed's optimisation: one pytree, all of it a function of (seed, settings, step).

Every random number of a seed comes from `fold_in(key(seed), ...)` of its own seed, so that a seed
knows nothing of its companions. Stack states for several seeds.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, UInt

from dsd_jax.fields.radiance import DENSITIES, RadianceField
from dsd_jax.recipe.presets import Settings
from dsd_jax.rendering import occupancy
from dsd_jax.rendering.scene import Scene

# Numbers folded into a seed's key beside its steps 0, 1, 2, ...: far above any step.
_NOISE, _PARAMS, _METHOD = 2**32 - 1, 2**32 - 2, 2**32 - 3


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
        cache: the seed's `ode_cache.Cache` where the run keeps one; a function of the rest, so no
            part of a checkpoint.
    """

    seed: UInt[Array, ""]
    step: Int[Array, ""]
    seed_noise: Float[Array, "*views h w c"]
    params: Any
    opt_state: Any
    occupancy: occupancy.OccupancyGrid
    method: Any = None
    cache: Any = None


def step_key(seed, step) -> jax.Array:
    """The key from which step `step` of seed `seed` draws."""
    return jax.random.fold_in(jax.random.key(seed), step)


def noise_key(seed) -> jax.Array:
    """The key from which the noise that seed `seed` keeps for its whole life is drawn."""
    return jax.random.fold_in(jax.random.key(seed), _NOISE)


def method_key(seed) -> jax.Array:
    """The key from which the network that a method trains for seed `seed` starts."""
    return jax.random.fold_in(jax.random.key(seed), _METHOD)


def seed_noise(seed, latent_shape: tuple[int, ...], settings: Settings) -> jax.Array:
    """The seed's noise, unit Gaussian: [h, w, c], or [views, h, w, c] with several views.

    All views have the noise that a single view has, except where `settings.view_noise` is "own".
    """
    key = noise_key(seed)
    if settings.views == 1:
        return jax.random.normal(key, latent_shape)
    if settings.view_noise == "own":
        return jax.random.normal(key, (settings.views, *latent_shape))
    noise = jax.random.normal(key, latent_shape)
    return jnp.broadcast_to(noise, (settings.views, *latent_shape))


def init_state(
    seed,
    latent_shape: tuple[int, ...],
    scene: Scene,
    settings: Settings,
    method: Callable[[jax.Array], Any] = lambda key: None,
) -> State:
    """The state of one seed before its first step; vmap over seeds for several.

    Args:
        method: key -> what the method trains, see `distil.initial`.
    """
    seed = jnp.asarray(seed, jnp.uint32)
    params = scene.init(jax.random.fold_in(jax.random.key(seed), _PARAMS))
    return State(
        seed=seed,
        step=jnp.zeros((), jnp.int32),
        seed_noise=seed_noise(seed, latent_shape, settings),
        params=params,
        opt_state=optimiser(settings).init(params),
        occupancy=occupancy.init(settings.occupancy_resolution),
        method=method(method_key(seed)),
    )


def without_cache(state: State) -> State:
    """What a checkpoint holds of a state, or of several: the rest is built from it anew."""
    return dataclasses.replace(state, cache=None)


def make_scene(settings: Settings) -> Scene:
    """The field and background that the settings describe; a random background is shown as grey."""
    field = RadianceField(
        levels=settings.levels,
        features=settings.features,
        log2_entries=settings.log2_entries,
        base_resolution=settings.base_resolution,
        growth=settings.growth,
        width=settings.width,
        hidden_layers=settings.hidden_layers,
        blob_scale=settings.blob_scale,
        blob_std=settings.blob_std,
        density_activation=DENSITIES[settings.density],
        density_floor=settings.density_floor,
        colour_std=settings.colour_std,
    )
    return Scene(field, "grey" if settings.background == "random" else settings.background)


def optimiser(settings: Settings) -> optax.GradientTransformation:
    """Adam with one learning rate each for hash tables, MLP and background."""

    def adam(rate):
        schedule = optax.cosine_decay_schedule(rate, settings.steps, alpha=settings.final_rate)
        return optax.adam(schedule, settings.beta1, settings.beta2, settings.adam_eps)

    rates: dict[Hashable, optax.GradientTransformation] = {
        "grid": adam(settings.grid_rate),
        "mlp": adam(settings.mlp_rate),
        "background": adam(settings.background_rate),
    }
    return optax.multi_transform(rates, _groups)


def _groups(params: Any) -> Any:
    """Which learning rate each leaf of the params has."""

    def group(path, leaf):
        names = [entry.key for entry in path]
        if names[0] == "background":
            return "background"
        return "grid" if "HashGrid_0" in names else "mlp"

    return jax.tree_util.tree_map_with_path(group, params)
