"""Refinement: the object that distillation left becomes as clean as the prior's own pictures.

Distillation through an encoder draws what the encoder wants to read, which is not what the decoder
would show: grain, burnt colours, holes. Here the encoder is never differentiated. A round is

 1. targets: for some groups of views around the object, render, encode, add noise up to t0, follow
    the guided ODE down to a clean sample (DDIM, the views of a group together), decode;
 2. steps: fit the field to all targets by random rays, with no network in the loop,

and t0 falls from round to round. Where the targets' noise comes from decides how diverse the
objects stay: it is the noise of the seed's ODE at t0, mixed with a growing share of fresh noise,
so that views which disagree are mended in the end.

Letters: g groups, v views of a group, m = g v views (and pictures', where there are any), s side
of a target, r rays.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from dsd_jax.priors.base import Prior
from dsd_jax.recipe.fitting_parts import RefineSettings
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.state import State, grouped_adam, kept_finite, step_key
from dsd_jax.recipe.targets import Targets, make_targets, stage_of
from dsd_jax.recipe.viewpoints import Shared, viewpoint_at
from dsd_jax.rendering import occupancy, regularisers
from dsd_jax.rendering.cameras import pixel_rays

# Softens the corner of the absolute difference at 0, in units of colour.
_CORNER = 0.01
# Rays of a step that give a point for the field's own penalty.
_PENALISED = 256


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """Adam for the steps of all rounds; its state has the structure of distillation's."""
    numbers, refine = recipe.optimise, recipe.refine
    rates = {"grid": refine.fit_rate, "mlp": refine.fit_rate, "background": numbers.background_rate}
    return grouped_adam(recipe, rates, refine.rounds * refine.fit_steps, refine.fit_final_rate)


def make_begin(recipe: Recipe) -> Callable[[State], State]:
    """What follows the first targets of one seed: the field settles, the optimiser starts anew."""

    def begin(state: State) -> State:
        scene, key = recipe.scene_of(True), jax.random.fold_in(_key(state), 3)
        stage = recipe.field.stage(1.0, final=True)
        field = scene.field.settled(key, state.params["field"], stage)
        params = {**state.params, "field": field}
        opt_state = optimiser(recipe).init(params)
        return dataclasses.replace(state, params=params, opt_state=opt_state)

    return begin


def make_prepare(prior: Prior, recipe: Recipe) -> Callable[[State, Shared, Any], State]:
    """What begins a round of one seed: (state, shared, whether it is the first) -> new targets.

    Those of the first are of what distillation left, before `make_begin`: a surface that only just
    begins has a halo, of colours that nothing has seen, and thin parts that are wide.
    """

    def prepare(state: State, shared: Shared, first: Any) -> State:
        index = (state.step - recipe.steps) // recipe.refine.fit_steps
        key = jax.random.fold_in(_key(state), 0)
        targets = make_targets(prior, recipe, shared, state, key, index, first)
        return dataclasses.replace(state, targets=targets)

    return prepare


def make_step(recipe: Recipe) -> Callable[[State, Shared], tuple[State, dict[str, Array]]]:
    """A step of the fit of one seed: (state, shared) -> (state, metrics [] each)."""

    def step(state: State, shared: Shared) -> tuple[State, dict[str, Array]]:
        key, pictures = jax.random.fold_in(_key(state), 1), shared.pictures
        objective = partial(_loss, recipe, state, key, pictures)
        (loss, opacity), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimiser(recipe).update(grads, state.opt_state, state.params)
        metrics = {"loss": loss, "opacity": opacity, "grad_norm": optax.global_norm(grads)}
        return dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        ), metrics

    return kept_finite(step)


def make_refresh(recipe: Recipe) -> Callable[[State], State]:
    """Renewal of one seed's occupancy grid, all of the field in use."""

    def refresh(state: State) -> State:
        field_fn = recipe.scene_of(True).field_fn(state.params, stage_of(recipe, state))
        grid = occupancy.update(state.occupancy, field_fn, jax.random.fold_in(_key(state), 2))
        return dataclasses.replace(state, occupancy=grid)

    return refresh


def _loss(recipe: Recipe, state: State, key, pictures: int, params) -> tuple[Array, Array]:
    """Charbonnier distance of r random rays to the targets, and a little entropy of opacity.

    Where targets tell opacity, it counts like a colour. And the field's own penalty, where the
    rays' samples are and around. Returns the loss and the mean opacity.
    """
    refine, targets, scene = recipe.refine, state.targets, recipe.scene_of(True)
    keys = jax.random.split(key, 4)
    m, s = targets.rgba.shape[:2]
    pixel = _pixels(keys[0], targets, m - pictures, refine)
    view, row, column = pixel // (s * s), pixel // s % s, pixel % s
    if pictures:
        of_picture = jax.random.uniform(keys[2], view.shape) < refine.picture_share
        view = jnp.where(of_picture, m - 1 - _any_of(keys[2], pictures, view.shape), view)
    _, cameras = viewpoint_at(targets.azimuth, targets.elevation, recipe.camera)
    origins, directions = pixel_rays(cameras, view, row, column, s)
    rendering = scene.render_rays(
        params,
        origins,
        directions,
        keys[1],
        stage=stage_of(recipe, state),
        samples_per_ray=refine.fit_samples,
        occupancy=state.occupancy,
        pull=jnp.where(targets.told[view], refine.colour_pull, 1.0),
    )
    wanted = targets.rgba[view, row, column].astype(jnp.float32) / 255
    hidden = jnp.where(targets.told[view], rendering.opacity - wanted[:, 3], 0)
    distance = _charbonnier(rendering.rgb - wanted[:, :3]) + _charbonnier(hidden)
    entropy = regularisers.opaque(rendering)
    points = _points(keys[3], origins, directions, rendering.distances)
    own = scene.field.penalty(params["field"], points)
    return distance + refine.fit_opaque * entropy + own, jnp.mean(rendering.opacity)


def _any_of(key, count: int, shape: tuple[int, ...]):
    """Random numbers below `count`."""
    return 0 if count == 1 else jax.random.randint(jax.random.fold_in(key, 1), shape, 0, count)


def _charbonnier(apart: Array) -> Array:
    """Mean absolute difference, smooth at 0."""
    return jnp.mean(jnp.sqrt(jnp.square(apart) + _CORNER**2)) - _CORNER


def _points(key, origins, directions, distances) -> Float[Array, "k 3"]:
    """A random sample of some rays, and as many points from anywhere in the box."""
    keys, count = jax.random.split(key, 2), min(_PENALISED, len(origins))
    chosen = jax.random.randint(keys[0], (count,), 0, distances.shape[1])
    along = jnp.take_along_axis(distances[:count], chosen[:, None], 1)
    anywhere = jax.random.uniform(keys[1], (count, 3), minval=-1, maxval=1)
    return jnp.concatenate([origins[:count] + along * directions[:count], anywhere])


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
