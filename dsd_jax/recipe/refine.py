"""Refinement: the object that distillation left becomes as clean as the prior's own pictures.

Distillation through an encoder draws what the encoder wants to read, which is not what the decoder
would show: grain, burnt colours, holes. Here the encoder is never differentiated. A round is

 1. targets: for some groups of views around the object, render, encode, add noise up to t0, follow
    the guided ODE down to a clean sample (DDIM, the views of a group together), decode;
 2. steps: fit the field to all targets by random rays, with no network in the loop,

and t0 falls from round to round. Where the targets' noise comes from decides how diverse the
objects stay: it is the noise of the seed's ODE at t0, mixed with a growing share of fresh noise,
so that views which disagree are mended in the end.

Letters: g groups, v views of a group, m = g v views (and the picture's, where there is one), s side
of a target, r rays.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from dsd_jax.priors.base import Prior
from dsd_jax.recipe.fitting_parts import RefineSettings
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.state import State, grouped_adam, step_key
from dsd_jax.recipe.targets import Targets, make_targets
from dsd_jax.recipe.viewpoints import Shared, viewpoint_at
from dsd_jax.rendering import occupancy
from dsd_jax.rendering.cameras import pixel_rays

# Softens the corner of the absolute difference at 0, in units of colour.
_CORNER = 0.01


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """Adam for the steps of all rounds; its state has the structure of distillation's."""
    numbers, refine = recipe.optimise, recipe.refine
    rates = {"grid": refine.fit_rate, "mlp": refine.fit_rate, "background": numbers.background_rate}
    return grouped_adam(recipe, rates, refine.rounds * refine.fit_steps, refine.fit_final_rate)


def make_prepare(prior: Prior, recipe: Recipe) -> Callable[[State, Shared], State]:
    """What begins a round of one seed: (state, shared) -> the state with new targets.

    Before the first round the optimiser starts anew.
    """

    def prepare(state: State, shared: Shared) -> State:
        done = state.step - recipe.steps
        index, key = done // recipe.refine.fit_steps, jax.random.fold_in(_key(state), 0)
        fresh = optimiser(recipe).init(state.params)
        opt_state = jax.tree.map(lambda a, b: jnp.where(done == 0, a, b), fresh, state.opt_state)
        targets = make_targets(prior, recipe, shared, state, key, index)
        return dataclasses.replace(state, opt_state=opt_state, targets=targets)

    return prepare


def make_step(recipe: Recipe) -> Callable[[State, Shared], tuple[State, dict[str, Array]]]:
    """A step of the fit of one seed: (state, shared) -> (state, metrics [] each)."""

    def step(state: State, shared: Shared) -> tuple[State, dict[str, Array]]:
        pictured = shared.reference is not None
        objective = partial(_loss, recipe, state, jax.random.fold_in(_key(state), 1), pictured)
        (loss, opacity), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimiser(recipe).update(grads, state.opt_state, state.params)
        metrics = {"loss": loss, "opacity": opacity, "grad_norm": optax.global_norm(grads)}
        return dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        ), metrics

    return step


def make_refresh(recipe: Recipe) -> Callable[[State], State]:
    """Renewal of one seed's occupancy grid, all of the field in use."""

    def refresh(state: State) -> State:
        field_fn = recipe.scene.field_fn(state.params, recipe.field.stage(1.0, final=True))
        grid = occupancy.update(state.occupancy, field_fn, jax.random.fold_in(_key(state), 2))
        return dataclasses.replace(state, occupancy=grid)

    return refresh


def _loss(recipe: Recipe, state: State, key, pictured: bool, params) -> tuple[Array, Array]:
    """Charbonnier distance of r random rays to the targets, and a little entropy of opacity."""
    refine, targets = recipe.refine, state.targets
    keys = jax.random.split(key, 3)
    m, s = targets.rgb.shape[:2]
    pixel = _pixels(keys[0], targets, m - pictured, refine)
    view, row, column = pixel // (s * s), pixel // s % s, pixel % s
    if pictured:
        of_picture = jax.random.uniform(keys[2], view.shape) < refine.picture_share
        view = jnp.where(of_picture, m - 1, view)
    _, cameras = viewpoint_at(targets.azimuth, targets.elevation, recipe.camera)
    rendering = recipe.scene.render_rays(
        params,
        *pixel_rays(cameras, view, row, column, s),
        keys[1],
        stage=recipe.field.stage(1.0, final=True),
        samples_per_ray=refine.fit_samples,
        occupancy=state.occupancy,
    )
    wanted = targets.rgb[view, row, column].astype(jnp.float32) / 255
    distance = jnp.mean(jnp.sqrt(jnp.square(rendering.rgb - wanted) + _CORNER**2)) - _CORNER
    p = jnp.clip(rendering.opacity, 1e-3, 1 - 1e-3)
    entropy = -jnp.mean(p * jnp.log(p) + (1 - p) * jnp.log1p(-p))
    return distance + refine.fit_opaque * entropy, jnp.mean(rendering.opacity)


def _pixels(key, targets: Targets, views: int, refine: RefineSettings) -> Int[Array, " r"]:
    """Random pixels of the first views, a share of them among those worth a look (if any is)."""
    keys = jax.random.split(key, 3)
    worth = targets.worth[:views].reshape(-1)
    anywhere = jax.random.randint(keys[0], (refine.rays,), 0, worth.size)
    if not refine.focus:
        return anywhere
    counted = jnp.cumsum(worth.astype(jnp.int32))
    rank = jax.random.randint(keys[1], anywhere.shape, 1, jnp.maximum(counted[-1], 1) + 1)
    there = jnp.searchsorted(counted, rank)
    focused = (jax.random.uniform(keys[2], rank.shape) < refine.focus) & (counted[-1] > 0)
    return jnp.where(focused, there, anywhere)


def _key(state: State) -> jax.Array:
    """The key of a moment of the refinement."""
    return step_key(state.seed, state.step)
