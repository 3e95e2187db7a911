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
from flax import struct
from jaxtyping import Array, Float, UInt8

from dsd_jax import ode
from dsd_jax.priors.base import Prior
from dsd_jax.recipe import kept_ode
from dsd_jax.recipe.fitting_parts import RefineSettings
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.reference import resized
from dsd_jax.recipe.state import State, grouped_adam, step_key
from dsd_jax.recipe.viewpoints import Reference, Shared, guided, viewpoint_at, visible
from dsd_jax.rendering import occupancy
from dsd_jax.rendering.cameras import Camera, pixel_rays
from dsd_jax.rendering.volume import chunk_within

# Points of a target's view that are rendered at a time.
_CHUNK_POINTS = 2**16
# Softens the corner of the absolute difference at 0, in units of colour.
_CORNER = 0.01


@struct.dataclass
class Targets:
    """What a round fits the field to.

    Attributes:
        rgb: [m, s, s, 3] pictures.
        azimuth, elevation: [m] radians, from where.
    """

    rgb: UInt8[Array, "m s s 3"]
    azimuth: Float[Array, " m"]
    elevation: Float[Array, " m"]


def no_targets(prior: Prior, recipe: Recipe, pictured: bool) -> Targets | None:
    """The place of targets in a state before the first round; None where nothing is refined."""
    if not recipe.refine.rounds:
        return None
    m, s = recipe.refine.groups * recipe.refine.group_views + pictured, prior.image_size
    return Targets(jnp.zeros((m, s, s, 3), jnp.uint8), jnp.zeros(m), jnp.zeros(m))


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """Adam for the steps of all rounds; its state has the structure of distillation's."""
    numbers, refine = recipe.optimise, recipe.refine
    rates = {"grid": refine.fit_rate, "mlp": refine.fit_rate, "background": numbers.background_rate}
    return grouped_adam(recipe, rates, refine.rounds * refine.fit_steps, refine.fit_final_rate)


def t_start(round_index, refine: RefineSettings, schedule) -> jax.Array:
    """t0 of a round, an integer timestep: from `t_first`, evenly, to `t_last`."""
    part = jnp.asarray(round_index, jnp.float32) / max(refine.rounds - 1, 1)
    fraction = refine.t_first + part * (refine.t_last - refine.t_first)
    return jnp.round(fraction * schedule.last).astype(jnp.int32)


def fresh_share(t0, refine: RefineSettings, schedule) -> jax.Array:
    """Share of fresh noise at t0: 0 at `t_first`, growing as t0 falls to `fresh` at `fresh_at`."""
    if refine.noise == "fresh":
        return jnp.ones(())
    way = max(refine.t_first - refine.fresh_at, 1e-6)
    fallen = (refine.t_first - t0 / schedule.last) / way
    return refine.fresh * jnp.clip(fallen, 0.0, 1.0)


# ---- targets -----------------------------------------------------------------------------------


def make_prepare(prior: Prior, recipe: Recipe) -> Callable[[State, Shared], State]:
    """What begins a round of one seed: (state, shared) -> the state with new targets.

    Before the first round the optimiser starts anew.
    """

    def prepare(state: State, shared: Shared) -> State:
        done = state.step - recipe.steps
        index, key = done // recipe.refine.fit_steps, jax.random.fold_in(_key(state), 0)
        fresh = optimiser(recipe).init(state.params)
        opt_state = jax.tree.map(lambda a, b: jnp.where(done == 0, a, b), fresh, state.opt_state)
        targets = _targets(prior, recipe, shared, state, key, index)
        return dataclasses.replace(state, opt_state=opt_state, targets=targets)

    return prepare


def _targets(prior: Prior, recipe: Recipe, shared: Shared, state: State, key, index) -> Targets:
    refine = recipe.refine
    keys = jax.random.split(key, refine.groups)
    t0 = t_start(index, refine, prior.schedule)

    def group(inputs):
        i, key = inputs
        return _group(prior, recipe, shared, state, key, i, t0)

    found = jax.lax.map(group, (jnp.arange(refine.groups), keys))
    found = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)
    return found if shared.reference is None else _with_picture(found, shared.reference)


def _group(prior, recipe: Recipe, shared: Shared, state: State, key, i, t0) -> Targets:
    """The targets of group i: v views evenly around the object, of one elevation."""
    refine, cameras, v = recipe.refine, recipe.camera, recipe.refine.group_views
    keys = jax.random.split(key, 3)
    first = (i + jax.random.uniform(keys[0])) / refine.groups * (2 * jnp.pi / v)
    low, high = jnp.deg2rad(cameras.elevation_min_deg), jnp.deg2rad(cameras.elevation_max_deg)
    elevation = jax.random.uniform(keys[1], (), minval=low, maxval=high)
    azimuth = first + jnp.arange(v) * (2 * jnp.pi / v)
    elevation = jnp.broadcast_to(elevation, azimuth.shape)
    viewpoints, camera = viewpoint_at(azimuth, elevation, cameras)
    rgb = jax.lax.map(partial(_render, prior, recipe, state), camera)
    x = jax.vmap(partial(prior.encode, shared.prior))(rgb)
    clean = _cleaned(prior, recipe, shared, state, keys[2], x, viewpoints, t0)
    pictures = jax.lax.map(partial(prior.decode, shared.prior), clean)
    return Targets(_bytes(pictures), azimuth, elevation)


def _render(prior: Prior, recipe: Recipe, state: State, camera: Camera) -> Float[Array, "s s 3"]:
    """The object from one camera at the prior's size, without randomness."""
    size, samples = prior.image_size, recipe.refine.target_samples
    rendering = recipe.scene.render(
        state.params,
        camera,
        stage=recipe.field.stage(1.0, final=True),
        height=size,
        width=size,
        samples_per_ray=samples,
        occupancy=state.occupancy,
        chunk=chunk_within(_CHUNK_POINTS, size, size * samples),
    )
    return rendering.rgb


def _cleaned(prior, recipe: Recipe, shared: Shared, state: State, key, x, viewpoints, t0):
    """x [v, h, w, c] noised to t0 and denoised along the guided ODE, views together or each."""

    def one(x, noise, key, place):
        eps = _noise(prior, recipe, shared, state, noise, key, place, t0)
        x_t = prior.schedule.add_noise(x, eps, t0)
        numbers = recipe.refine
        scale = (
            recipe.method.guidance_scale
            if numbers.target_guidance is None
            else numbers.target_guidance
        )
        at = guided(prior, shared.prior, shared.condition, place, numbers.target_rescale)
        grid = jnp.linspace(t0, 0, numbers.ddim_steps).astype(jnp.int32)
        return ode.integrate(at(scale), prior.schedule, x_t, grid, grid[-1]).xhat_t

    noise = state.seed_noise.reshape(-1, *x.shape[1:])
    noise = noise if noise.shape == x.shape else jnp.broadcast_to(noise[:1], x.shape)
    if prior.denoises_together:
        return one(x, noise, key, viewpoints)
    keys = jnp.broadcast_to(key, (x.shape[0],))
    return jax.lax.map(lambda inputs: one(*inputs), (x, noise, keys, viewpoints))


def _noise(prior, recipe: Recipe, shared: Shared, state: State, noise, key, place, t0):
    """The noise that targets start from: the seed's ODE's at t0, with a share of fresh noise.

    Views of a group get the same fresh noise. The ODE is the kept one where it is of such views,
    else it is followed from its start.
    """
    share = fresh_share(t0, recipe.refine, prior.schedule)
    if shared.reference is not None:
        share = jnp.maximum(share, recipe.reference.visible_eta * visible(place))
    fresh = jnp.broadcast_to(jax.random.normal(key, noise.shape[-3:]), noise.shape)
    if recipe.refine.noise == "fresh":
        return fresh
    if state.ode is not None and _kept_serves(prior, recipe):
        given = shared.prior, shared.condition, place, recipe
        eps = kept_ode.eps_at(state.ode, prior, *given)(t0)
    else:
        method, share_of = recipe.method, recipe.method.guidance_rescale
        at = guided(prior, shared.prior, shared.condition, place, share_of)
        grid, denoiser = method.ode_grid(prior.schedule), method.ode_denoiser(at, prior.schedule)
        eps = ode.integrate(denoiser, prior.schedule, noise, grid, t0).eps_t
    return jnp.sqrt(1 - jnp.square(share)) * eps + share * fresh


def _kept_serves(prior: Prior, recipe: Recipe) -> bool:
    """Whether what the run keeps of the seed's ODE is of views like those of a group."""
    like = not prior.denoises_together or recipe.camera.views == recipe.refine.group_views
    return recipe.keeps_ode and like and not kept_ode.own_noises(prior, recipe)


def _with_picture(targets: Targets, picture: Reference) -> Targets:
    """The targets, and the picture that the object is made of as the last one."""
    size = targets.rgb.shape[1:3]
    rgb = _bytes(resized(picture.rgb, size))
    return Targets(
        jnp.concatenate([targets.rgb, rgb[None]]),
        jnp.append(targets.azimuth, 0.0),
        jnp.append(targets.elevation, picture.elevation),
    )


def predictions(prior: Prior, recipe: Recipe) -> int:
    """Guided predictions of one view that the targets of one seed take, all rounds."""
    refine, schedule = recipe.refine, prior.schedule
    follows = refine.noise == "ode" and not _kept_serves(prior, recipe)
    found = 0
    for index in range(refine.rounds):
        t0 = int(t_start(index, refine, schedule))
        way = sum(t > t0 for t in recipe.method.ode_grid(schedule)) + 1 if follows else 0
        found += refine.ddim_steps + way
    return refine.groups * refine.group_views * found


# ---- steps -------------------------------------------------------------------------------------


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
    pixel = jax.random.randint(keys[0], (refine.rays,), 0, (m - pictured) * s * s)
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


def _key(state: State) -> jax.Array:
    """The key of a moment of the refinement."""
    return step_key(state.seed, state.step)


def _bytes(rgb: Float[Array, "*n s s 3"]) -> UInt8[Array, "*n s s 3"]:
    return jnp.rint(jnp.clip(rgb, 0.0, 1.0) * 255).astype(jnp.uint8)
