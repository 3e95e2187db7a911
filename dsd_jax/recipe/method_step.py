"""What a distillation method is given, in 3D and in 2D, and what it gives back.

Letters: v views, h w c latents. Several views are denoised together by a prior that knows cameras,
else one by one; the network that a method trains is trained once a step, on all of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from dsd_jax.distillation.common import Method, taken
from dsd_jax.guidance import DenoiserAt
from dsd_jax.ode import linear_grid
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.recipe import annealing, kept_ode
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.viewpoints import (
    Picture,
    Shared,
    Text,
    condition,
    of_picture,
    of_prompt,
    visible,
    words_of,
)
from dsd_jax.schedule import NoiseSchedule

# Settings.weighting -> (schedule, t) -> weight of the gradient
WEIGHTINGS: dict[str, Callable] = {"variance": NoiseSchedule.variance, "one-step": NoiseSchedule.s}


class Setup(Protocol):
    """What both `step.Recipe` and `text_to_2d.Task` have."""

    @property
    def prior(self) -> Prior: ...
    @property
    def method(self) -> Method: ...
    @property
    def settings(self) -> Settings: ...


def gradient(setup: Setup, shared: Shared, key, x, noise, t, state, viewpoint, camera):
    """The distillation gradient on x [v, h, w, c], and what the method logs.

    Args:
        noise: [h, w, c] for one view, else like x.
        state: what it needs of a `State`: `step`, `method` and `cache`.
        viewpoint, camera: leaves with leading axis v.
    """
    settings, prior = setup.settings, setup.prior
    if settings.views == 1:
        x, viewpoint, camera = _first(x, viewpoint, camera)
        grad, aux = _of_view(setup, shared, state, t, state.cache, key, x, noise, viewpoint, camera)
        return grad[None], aux
    one = partial(_of_view, setup, shared, state, t)
    if prior.has_camera:
        return one(state.cache, key, x, noise, viewpoint, camera)
    keys = jnp.broadcast_to(key, (settings.views,))
    axes = 0 if kept_ode.own_noises(prior, settings) else None, 0, 0, 0, 0, 0
    return jax.vmap(one, in_axes=axes)(state.cache, keys, x, noise, viewpoint, camera)


def _of_view(setup: Setup, shared: Shared, state, t, cache, key, x, noise, viewpoint, camera):
    """The same for one view [h, w, c], or for several that are denoised together."""
    prior, settings, function = setup.prior, setup.settings, setup.method.gradient
    text, place = shared.text, (camera, settings)
    part = t / prior.schedule.num_train_timesteps
    offered = method_settings(function, part, state.step, settings)
    if isinstance(text, Picture) and "eta" in offered:
        least = settings.visible_eta * visible(viewpoint)
        offered["eta"] = jnp.maximum(offered["eta"], least)
    if isinstance(text, Text) and text.nfsd is not None:
        offered["negative"] = of_prompt(prior, shared.prior, text.nfsd, text, *place)(1.0)
    if state.method is not None:
        offered["learned"] = _learned(setup, shared, state.method.weights, viewpoint, camera)
    if cache is not None:
        offered["eps_at"] = kept_ode.eps_at(cache, prior, *shared, viewpoint, settings)
    denoiser_at = condition(prior, *shared, viewpoint, *place)
    method = partial(function, **taken(function, offered))
    grad, aux = method(key, denoiser_at, prior.schedule, x, noise, t)
    return grad, aux | ({} if cache is None else cache.metrics)


def train(setup: Setup, shared: Shared, key, x, t, state, viewpoint, camera):
    """The state of the network that the method trains after a step on x, and what it logs.

    The arguments are those of `gradient`; without such a network the state is None.
    """
    settings, prior, function = setup.settings, setup.prior, setup.method.update
    if function is None:
        return None, {}
    one_by_one = settings.views > 1 and not prior.has_camera
    if settings.views == 1:
        x, viewpoint, camera = _first(x, viewpoint, camera)

    def of_views(at: Callable[..., DenoiserAt]) -> DenoiserAt:
        """(viewpoint, camera) -> DenoiserAt becomes the DenoiserAt of all views."""
        if not one_by_one:
            return at(viewpoint, camera)

        def denoiser_at(scale):
            def denoiser(x, t):
                return jax.vmap(lambda x, *place: at(*place)(scale)(x, t))(x, viewpoint, camera)

            return denoiser

        return denoiser_at

    def prior_at(viewpoint, camera):
        return condition(prior, *shared, viewpoint, camera, settings)

    def learned_at(weights):
        return of_views(partial(_learned, setup, shared, weights))

    part = t / prior.schedule.num_train_timesteps
    offered = method_settings(function, part, state.step, settings)
    offered["denoiser_at"] = of_views(prior_at)
    method = partial(function, **taken(function, offered))
    return method(key, state.method, learned_at, prior.schedule, x, t)


def _learned(setup: Setup, shared: Shared, weights, viewpoint, camera) -> DenoiserAt:
    """The adapted network, told of the view what the prior is told, but without Perp-Neg."""
    prior, settings, text = setup.prior, setup.settings, shared.text
    params = prior.adapt(shared.prior, weights)
    if isinstance(text, Picture):
        return of_picture(prior, params, text, viewpoint)
    words = text.plain if prior.has_camera else words_of(text, viewpoint, settings)
    return of_prompt(prior, params, words, text, camera, settings)


def initial(setup: Setup) -> Callable[[jax.Array], Any]:
    """key -> the state of the network that the method trains, None where it trains none."""
    prior, settings, function = setup.prior, setup.settings, setup.method.init
    if function is None:
        return lambda key: None
    shapes = jax.eval_shape(lambda: prior.params)

    def adapter(key):
        return prior.init_adapter(key, shapes, settings.lora_rank)

    offered = method_settings(function, settings.t_max, 0, settings)
    return lambda key: function(key, adapter, **offered)


def method_settings(function: Callable, t, step, settings: Settings) -> dict[str, Any]:
    """Those settings that a function of a method takes; t as a fraction of all timesteps."""
    eta_at = settings.t_min if settings.eta_at is None else settings.eta_at
    fallen = (settings.t_max - t) / (settings.t_max - eta_at)
    offered = {
        "guidance_scale": settings.guidance_scale,
        "guidance_scale_prime": settings.guidance_scale_prime,
        "ode_guidance_below": settings.ode_guidance_below,
        "anchor": settings.anchor,
        "eta": settings.eta * jnp.clip(fallen, 0.0, 1.0),
        "fresh_share": settings.fresh_share,
        "gamma": settings.asd_gamma,
        "grid": linear_grid(settings.ode_points),
        "lora_rate": settings.lora_rate,
        "offset_fraction": settings.t_prime_offset,
        "t_prime_min": annealing.t_prime_min(step, settings.steps),
        "weight": WEIGHTINGS[settings.weighting],
    }
    return {k: v for k, v in taken(function, offered).items() if v is not None}


def _first(*trees: Any) -> Any:
    """The first view of each."""
    return jax.tree.map(lambda leaf: leaf[0], trees)
