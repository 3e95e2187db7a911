"""One optimisation step of one seed: state -> state. The caller vmaps, loops and jits.

Letters: v views, h w c latents, H W pixels. p = step / steps is the progress, from 0 to 1.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsd_jax.distillation.common import Method
from dsd_jax.fields.background import random_colour
from dsd_jax.fields.radiance import analytic_normals
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.recipe import annealing, kept_ode, method_step, reference
from dsd_jax.recipe.method_step import WEIGHTINGS
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.state import State, noise_key, optimiser, step_key
from dsd_jax.recipe.viewpoints import Picture, Shared, sample_viewpoints
from dsd_jax.rendering import occupancy, regularisers, surface_noise
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.scene import Scene
from dsd_jax.rendering.shading import PointLight, sample_light
from dsd_jax.rendering.volume import Rendering, step_chunk


class Recipe(NamedTuple):
    """What a step is made of; fixed when it is compiled.

    Attributes:
        method: a value of `distillation.METHODS`.
        settings: of the phase, see `presets.phases`.
    """

    scene: Scene
    prior: Prior
    method: Method
    settings: Settings


def make_step(recipe: Recipe) -> Callable[[State, Shared], tuple[State, dict[str, jax.Array]]]:
    """The step of one seed under a recipe: (state, shared) -> (state, metrics [] each)."""
    return partial(_step, recipe)


def make_refresh(recipe: Recipe) -> Callable[[State], State]:
    """Renewal of one seed's occupancy grid."""

    def refresh(state: State) -> State:
        key = jax.random.fold_in(step_key(state.seed, state.step), 1)
        step, settings = state.step, recipe.settings
        parts = open_levels(step, settings), floor_part(step, settings)
        field_fn = recipe.scene.field_fn(state.params, *parts)
        grid = occupancy.update(state.occupancy, field_fn, key)
        return dataclasses.replace(state, occupancy=grid)

    return refresh


def make_cache(recipe: Recipe) -> Callable[[State, Shared], State] | None:
    """What gives one seed's state its `ode_cache`; None where the method or `ode` needs none."""
    if not kept_ode.is_used(recipe.method, recipe.settings):
        return None

    def fill(state: State, shared: Shared) -> State:
        cache = kept_ode.build(recipe.prior, *shared, state.seed_noise, recipe.settings)
        return dataclasses.replace(state, cache=cache)

    return fill


def _step(recipe: Recipe, state: State, shared: Shared) -> tuple[State, dict[str, jax.Array]]:
    settings = recipe.settings
    keys = jax.random.split(step_key(state.seed, state.step), 4)
    viewpoint, camera = sample_viewpoints(keys[0], settings)
    light = _light(keys[1], camera, state.step, settings)

    def seen(params):
        renderings = _render(recipe, params, state, camera, light, keys[2])
        penalty, terms = penalties(renderings, camera, state.step, settings)
        if isinstance(shared.text, Picture):
            distance, parts = _as_pictured(recipe, params, state, shared.text, keys[2])
            penalty, terms = penalty + distance, terms | parts
        return (renderings.rgb, penalty), (terms, renderings)

    (rgb, penalty), pull_back, (terms, renderings) = jax.vjp(seen, state.params, has_aux=True)
    start = state
    if settings.view_noise == "attached":
        noise = surface_noise.of_views(noise_key(state.seed), renderings, camera, state.seed_noise)
        start = dataclasses.replace(state, seed_noise=noise)
    grad_rgb, grad_x, method, aux = _pull(recipe, shared, keys[3], rgb, start, viewpoint, camera)
    (grads,) = pull_back((grad_rgb / settings.views, jnp.ones_like(penalty)))
    updates, opt_state = optimiser(settings).update(grads, state.opt_state, state.params)
    metrics = {
        "loss": 0.5 * jnp.mean(jnp.square(grad_x)),
        "penalty": penalty,
        "opacity": jnp.mean(renderings.opacity),
        "grad_norm": optax.global_norm(grads),
        **{name: jnp.mean(value) for name, value in (terms | aux).items()},
    }
    return dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        method=method,
    ), jax.tree.map(lambda m: m.astype(jnp.float32), metrics)


def open_levels(step, settings: Settings) -> jax.Array | None:
    """How many hash-grid levels are open: `start_levels`, then linearly all of them."""
    if settings.start_levels >= settings.levels:
        return None
    part = ramp(step, settings, 0.0, settings.levels_until)
    return settings.start_levels + part * (settings.levels - settings.start_levels)


def floor_part(step, settings: Settings) -> jax.Array:
    """Share of `density_floor` that holds: none until p = `late_from`, all of it from 0.9 on."""
    return ramp(step, settings, settings.late_from, 0.9)


def ramp(step, settings: Settings, start: float, end: float) -> jax.Array:
    """From 0 at p = `start` to 1 at p = `end`, linearly, and constant outside."""
    p = jnp.asarray(step, jnp.float32) / settings.steps
    return jnp.clip((p - start) / max(end - start, 1e-9), 0.0, 1.0)


def penalties(
    r: Rendering, camera: Camera, step, settings: Settings
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted sum of the regularisers, meaned over v views, and each unweighted term."""
    early, late = 1.0 - ramp(step, settings, 0.0, settings.early_until), step / settings.steps
    table: dict[str, tuple[Any, Callable]] = {
        "sparsity": (early, regularisers.sparsity),
        "opaque": (late, regularisers.opaque),
        "z_variance": (late, regularisers.z_variance),
        "distortion": (late, regularisers.distortion),
        "entropy": (late, regularisers.entropy),
        "total_variation": (late, regularisers.total_variation),
    }
    with_camera: dict[str, tuple[Any, Callable]] = {
        "keep_in_ball": (1.0, regularisers.keep_in_ball),
        "normal_smoothness": (late, regularisers.normal_smoothness),
    }
    if r.normal is not None:
        table["orientation"] = (1.0, regularisers.orientation)
        with_camera["convexity"] = (early, regularisers.convexity)
    table |= {name: (part, lambda r, f=f: f(*r)) for name, (part, f) in with_camera.items()}
    terms, total = {}, jnp.zeros(())
    for name, (part, term) in table.items():
        weight = getattr(settings, name)
        if weight:
            seen = (r, camera) if name in with_camera else r
            terms[name] = jnp.mean(jax.vmap(term)(seen))
            total += weight * part * terms[name]
    return total, terms


def _as_pictured(recipe: Recipe, params, state: State, picture: Picture, key):
    """How far the reference view is from the picture, see `reference.distance`."""
    one = recipe._replace(settings=dataclasses.replace(recipe.settings, views=1))
    camera = reference.camera_of(picture.elevation, one.settings)
    normals = analytic_normals if picture.normal is not None else None
    key = jax.random.fold_in(key, recipe.settings.views + 1)
    picture, offset = reference.part_of(picture, one.settings.resolution, key)
    views = jax.tree.map(lambda leaf: leaf[None], camera)
    rendering = _render(one, params, state, views, None, key, normals, offset)
    rendering = jax.tree.map(lambda leaf: leaf[0], rendering)
    return reference.distance(rendering, picture, camera, one.settings)


def _light(key: jax.Array, camera: Camera, step, settings: Settings) -> PointLight | None:
    """A point light for the views, None where this run never shades.

    Steps that are not shaded get a light of ambience alone.
    """
    if settings.shading_from >= 1.0 or settings.shading_probability == 0.0:
        return None
    light_key, choice_key = jax.random.split(key)
    first = jax.tree.map(lambda leaf: leaf[0], camera)
    light = sample_light(light_key, first, settings.textureless_probability)
    on = jax.random.uniform(choice_key) < settings.shading_probability
    on = on & (step >= settings.shading_from * settings.steps)
    return light._replace(
        ambient=jnp.where(on, light.ambient, 1.0),
        diffuse=jnp.where(on, light.diffuse, 0.0),
        textureless=jnp.where(on, light.textureless, 0.0),
    )


def _render(
    recipe: Recipe,
    params,
    state: State,
    camera: Camera,
    light,
    key,
    normals=None,
    offset=(0.0, 0.0),
) -> Rendering:
    """The views of a step, leaves with leading axis v."""
    settings = recipe.settings
    normals = analytic_normals if settings.convexity else normals

    def view(camera, key, background):
        return recipe.scene.render(
            params,
            camera,
            key,
            open_levels=open_levels(state.step, settings),
            floor_part=floor_part(state.step, settings),
            background=background,
            height=settings.resolution,
            width=settings.resolution,
            samples_per_ray=settings.samples,
            chunk=step_chunk(settings.resolution, settings.samples),
            occupancy=state.occupancy,
            shading=light,
            normals=normals,
            normals_at="surface",
            offset=offset,
        )

    keys, backgrounds = jax.random.split(key, settings.views), None
    if settings.background == "random":
        colour_key = jax.random.fold_in(key, settings.views)
        backgrounds = jax.vmap(random_colour)(jax.random.split(colour_key, settings.views))
    return jax.vmap(view)(camera, keys, backgrounds)


def _pull(recipe: Recipe, shared: Shared, key, rgb, state: State, viewpoint, camera):
    """The gradients on rendered views rgb [v, H, W, 3] and on their latents.

    Also the state of the network that the method trains, after a step on them, and what is logged.
    In latents it is the method's gradient through the encoder. In pictures it is the distance to
    the one-step prediction that this gradient implies, decoded, under the same weight:

        x - xhat = s_t gradient / weight_t,    gradient on rgb = weight_t / s_t (rgb - D(xhat)).
    """
    settings, prior = recipe.settings, recipe.prior
    t = annealing.run_timestep(state.step, settings, prior.schedule)
    encode = jax.vmap(partial(prior.encode, shared.prior))
    share = settings.image_space
    x, pull_encoder = (encode(rgb), None) if share == 1 else jax.vjp(encode, rgb)
    seen = t, state, viewpoint, camera
    grad_x, aux = method_step.gradient(recipe, shared, key, x, state.seed_noise, *seen)
    method, learned = method_step.train(recipe, shared, jax.random.fold_in(key, 2), x, *seen)
    grad_rgb = jnp.zeros_like(rgb)
    if pull_encoder is not None:
        grad_rgb += (1 - share) * pull_encoder(grad_x)[0]
    if share:
        strength = WEIGHTINGS[settings.weighting](prior.schedule, t) / prior.schedule.s(t)
        target = jax.vmap(partial(prior.decode, shared.prior))(x - grad_x / strength)
        target = jax.image.resize(target, rgb.shape, "linear")
        grad_rgb += share * strength * (rgb - target)
    return grad_rgb, grad_x, method, aux | learned
