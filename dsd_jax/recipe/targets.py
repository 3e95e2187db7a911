"""Targets of the refinement: pictures of the object from around it, as clean as the prior's own.

For some groups of views: render, encode, add noise up to t0, follow the guided ODE down to a clean
sample (DDIM, the views of a group together), decode. The noise is that of the seed's ODE at t0,
mixed with a share of fresh noise; see `refine`.

Letters: g groups, v views of a group, m = g v views (and those of pictures, where there are any), s
side of a target.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, UInt8

from dsd_jax import ode
from dsd_jax.priors.base import Prior
from dsd_jax.recipe import annealing, kept_ode
from dsd_jax.recipe.fitting_parts import RefineSettings
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.reference import resized
from dsd_jax.recipe.state import State
from dsd_jax.recipe.viewpoints import (
    Reference,
    Shared,
    as_seen,
    guided,
    random_elevation,
    viewpoints_around,
    visible,
)
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.chunks import chunk_within

# Points of a target's view that are rendered at a time.
_CHUNK_POINTS = 2**16
# A pixel is worth a look where there is so much matter, or so much is to change, and so far around.
_SEEN, _CHANGED, _AROUND = 0.1, 0.05, 3


@struct.dataclass
class Targets:
    """What a round fits the field to.

    Attributes:
        rgba: [m, s, s, 4] pictures, and how much of the background is hidden.
        told: [m] whether that is known: of the picture, and of what a prior draws that
            `sees_opacity`.
        worth: [m, s, s] where a ray is worth more than elsewhere: at matter, in what is rendered
            or wanted, and around it.
        azimuth, elevation: [m] radians, from where.
    """

    rgba: UInt8[Array, "m s s 4"]
    told: Bool[Array, " m"]
    worth: Bool[Array, "m s s"]
    azimuth: Float[Array, " m"]
    elevation: Float[Array, " m"]


def no_targets(prior: Prior, recipe: Recipe, pictures: int) -> Targets | None:
    """The place of targets in a state before the first round; None where nothing is refined."""
    if not recipe.refine.rounds:
        return None
    m, s = recipe.refine.groups * recipe.refine.group_views + pictures, prior.image_size
    rgba, worth = jnp.zeros((m, s, s, 4), jnp.uint8), jnp.zeros((m, s, s), bool)
    return Targets(rgba, jnp.zeros(m, bool), worth, jnp.zeros(m), jnp.zeros(m))


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


def make_targets(
    prior: Prior, recipe: Recipe, shared: Shared, state: State, key, index, first
) -> Targets:
    """The targets of round `index` of one seed; of the `first`, those of distillation's field."""
    refine = recipe.refine
    keys = jax.random.split(key, refine.groups)
    t0 = t_start(index, refine, prior.schedule)

    def group(inputs):
        i, key = inputs
        return _group(prior, recipe, shared, state, key, i, t0, first)

    found = jax.lax.map(group, (jnp.arange(refine.groups), keys))
    found = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)
    if shared.reference is not None:
        found = _with_picture(found, shared.reference)
    for azimuth, picture in shared.others:
        found = _with_picture(found, picture, azimuth)
    return found


def stage_of(recipe: Recipe, state: State):
    """What of the field is in use at a state's step of the refinement."""
    begun = jnp.maximum(state.step, recipe.steps + 1)
    return recipe.scene.field.stage(annealing.progress(begun, recipe), final=True)


def _group(prior, recipe: Recipe, shared: Shared, state: State, key, i, t0, first) -> Targets:
    """The targets of group i: v views evenly around the object, of one elevation."""
    refine, v = recipe.refine, recipe.refine.group_views
    keys = jax.random.split(key, 3)
    turn = (i + jax.random.uniform(keys[0])) / refine.groups * (2 * jnp.pi / v)
    elevation = random_elevation(keys[1], recipe.camera)
    viewpoints, camera = viewpoints_around(turn, elevation, v, recipe.camera)
    rgb, opacity = jax.lax.map(partial(_render, prior, recipe, state, first), camera)
    x = jax.vmap(partial(prior.encode, shared.prior))(as_seen(prior, rgb, opacity))
    clean = _cleaned(prior, recipe, shared, state, keys[2], x, viewpoints, t0)
    pictures = jax.lax.map(partial(prior.decode, shared.prior), clean)
    if not prior.sees_opacity:
        pictures = jnp.pad(pictures, [(0, 0)] * 3 + [(0, 1)])
    worth = jax.vmap(_worth)(pictures, rgb, opacity)
    told = jnp.full(v, prior.sees_opacity)
    return Targets(_bytes(pictures), told, worth, viewpoints.azimuth, viewpoints.elevation)


def _render(
    prior: Prior, recipe: Recipe, state: State, first: Any, camera: Camera
) -> tuple[Float[Array, "h w 3"], Float[Array, "h w"]]:
    """Colour and opacity of the object from one camera, without randomness.

    One program renders either field, so that the networks around it are compiled once.
    """
    size = recipe.refine.target_resolution or prior.image_size
    samples = recipe.refine.target_samples

    def of(refining: bool) -> tuple[Array, Array]:
        rendering = recipe.scene_of(refining).render(
            state.params,
            camera,
            stage=stage_of(recipe, state),
            height=size,
            width=size,
            samples_per_ray=samples,
            occupancy=state.occupancy,
            chunk=chunk_within(_CHUNK_POINTS, size, size * samples),
        )
        return rendering.rgb, rendering.opacity

    if not recipe.becomes_surface:
        return of(True)
    return jax.lax.cond(first, lambda: of(False), lambda: of(True))


def _worth(picture, rgb, opacity) -> Bool[Array, "s s"]:
    """Where a ray of a target [s, s, 4] is worth more than elsewhere.

    At matter, where the target differs from what is rendered [h, h, 3], and around both.
    """
    rgb, opacity = resized(rgb, picture.shape[:2]), resized(opacity[..., None], picture.shape[:2])
    changed = jnp.max(jnp.abs(picture[..., :3] - rgb), -1) > _CHANGED
    found, side = changed | (opacity[..., 0] > _SEEN), 2 * _AROUND + 1
    return jax.lax.reduce_window(found, False, jax.lax.bitwise_or, (side, side), (1, 1), "SAME")


def _cleaned(prior, recipe: Recipe, shared: Shared, state: State, key, x, viewpoints, t0):
    """x [v, h, w, c] noised to t0 and denoised along the guided ODE, views together or each."""

    def one(x, noise, key, place):
        eps = _noise(prior, recipe, shared, state, noise, key, place, t0)
        x_t = prior.schedule.add_noise(x, eps, t0)
        numbers, scale = recipe.refine, recipe.refine.target_guidance
        method = dataclasses.replace(recipe.method, guidance_rescale=numbers.target_rescale)
        scale = method.guidance_scale if scale is None else scale
        at = guided(prior, shared.prior, shared.condition, place, method)
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
        share = jnp.maximum(share, recipe.reference.visible_eta * visible(place, shared.others))
    fresh = jnp.broadcast_to(jax.random.normal(key, noise.shape[-3:]), noise.shape)
    if recipe.refine.noise == "fresh":
        return fresh
    if state.ode is not None and _kept_serves(prior, recipe):

        def kept(place, noise):
            given = shared.prior, shared.condition, place, recipe, noise
            return kept_ode.ode_at(state.ode, prior, *given)(t0).eps_t

        each = prior.denoises_together and recipe.camera.views == 1
        eps = jax.vmap(kept)(place, noise) if each else kept(place, noise)
    else:
        method = recipe.method
        at = guided(prior, shared.prior, shared.condition, place, method)
        grid, denoiser = method.ode_grid(prior.schedule), method.ode_denoiser(at, prior.schedule)
        eps = ode.integrate(denoiser, prior.schedule, noise, grid, t0).eps_t
    return jnp.sqrt(1 - jnp.square(share)) * eps + share * fresh


def _kept_serves(prior: Prior, recipe: Recipe) -> bool:
    """Whether what the run keeps of the seed's ODE is of single views, or of those of a group."""
    like = not prior.denoises_together or recipe.camera.views in (1, recipe.refine.group_views)
    return recipe.keeps_ode and like and not kept_ode.own_noises(prior, recipe)


def _with_picture(targets: Targets, picture: Reference, azimuth: Any = 0.0) -> Targets:
    """The targets, and a picture that the object is made of as the last one."""
    size = targets.rgba.shape[1:3]
    rgba = jnp.concatenate([picture.rgb, picture.mask[..., None]], -1)
    return Targets(
        jnp.concatenate([targets.rgba, _bytes(resized(rgba, size))[None]]),
        jnp.append(targets.told, True),
        jnp.concatenate([targets.worth, jnp.ones((1, *size), bool)]),
        jnp.append(targets.azimuth, azimuth),
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


def _bytes(pictures: Float[Array, "*n s s 4"]) -> UInt8[Array, "*n s s 4"]:
    return jnp.rint(jnp.clip(pictures, 0.0, 1.0) * 255).astype(jnp.uint8)
