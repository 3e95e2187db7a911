"""One optimisation step of one seed: state -> state. The caller vmaps, loops and jits.

Letters: v views, h w c latents, H W pixels. p = step / steps is the progress, from 0 to 1.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dsd_jax.fields.background import random_colour
from dsd_jax.fields.radiance import analytic_normals, ramp
from dsd_jax.priors.base import Prior, Viewpoint
from dsd_jax.recipe import annealing, kept_ode, method_step, reference
from dsd_jax.recipe.fitting_parts import RegulariseSettings
from dsd_jax.recipe.parts import RenderSettings
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.state import State, kept_finite, noise_key, optimiser, step_key
from dsd_jax.recipe.viewpoints import Reference, Shared, as_seen, sample_viewpoints
from dsd_jax.rendering import occupancy, regularisers, surface_noise
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.chunks import step_chunk
from dsd_jax.rendering.shading import PointLight, sample_light
from dsd_jax.rendering.volume import Rendering

Logs = dict[str, jax.Array]


def make_step(prior: Prior, recipe: Recipe) -> Callable[[State, Shared], tuple[State, Logs]]:
    """The step of one seed: (state, shared) -> (state, metrics [] each).

    Args:
        prior: its `params` are not used; those of `shared` are.
        recipe: of the phase, see `recipe.phases`.
    """
    return kept_finite(partial(_step, prior, recipe))


def make_refresh(recipe: Recipe) -> Callable[[State], State]:
    """Renewal of one seed's occupancy grid."""

    def refresh(state: State) -> State:
        key = jax.random.fold_in(step_key(state.seed, state.step), 1)
        field_fn = recipe.scene_of(False).field_fn(state.params, _stage(recipe, state))
        grid = occupancy.update(state.occupancy, field_fn, key)
        return dataclasses.replace(state, occupancy=grid)

    return refresh


def make_fill(prior: Prior, recipe: Recipe) -> Callable[[State, Shared], State] | None:
    """What gives one seed's state its kept ODE; None where the recipe keeps none."""
    if not recipe.keeps_ode:
        return None

    def fill(state: State, shared: Shared) -> State:
        kept = kept_ode.build(prior, shared.prior, shared.condition, state.seed_noise, recipe)
        return dataclasses.replace(state, ode=kept)

    return fill


def _step(prior: Prior, recipe: Recipe, state: State, shared: Shared) -> tuple[State, Logs]:
    keys = jax.random.split(step_key(state.seed, state.step), 4)
    fixed = kept_ode.fixed_views(prior, recipe, state.step)
    viewpoints, camera = sample_viewpoints(keys[0], recipe.camera, fixed)
    light = _light(keys[1], camera, state.step, recipe)

    def seen(params):
        renderings = _render(recipe, params, state, camera, light, keys[2])
        p = annealing.progress(state.step, recipe)
        penalty, terms = penalties(renderings, camera, p, recipe.regularise)
        if shared.reference is not None:
            distance, parts = _as_pictured(recipe, params, state, shared, keys[2])
            penalty, terms = penalty + distance, terms | parts
        return (as_seen(prior, renderings.rgb, renderings.opacity), penalty), (terms, renderings)

    (pictures, penalty), pull_back, (terms, renderings) = jax.vjp(seen, state.params, has_aux=True)
    noise = state.seed_noise
    if recipe.view_noise == "attached":
        noise = surface_noise.of_views(noise_key(state.seed), renderings, camera, noise)
    grad_pictures, grad_x, method, logs = _pull(
        prior, recipe, shared, keys[3], pictures, noise, state, viewpoints
    )
    (grads,) = pull_back((grad_pictures / recipe.camera.views, jnp.ones_like(penalty)))
    updates, opt_state = optimiser(recipe).update(grads, state.opt_state, state.params)
    metrics = {
        "loss": 0.5 * jnp.mean(jnp.square(grad_x)),
        "penalty": penalty,
        "opacity": jnp.mean(renderings.opacity),
        "grad_norm": optax.global_norm(grads),
        **{name: jnp.mean(value) for name, value in (terms | logs).items()},
    }
    return dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        method=method,
    ), jax.tree.map(lambda m: m.astype(jnp.float32), metrics)


def _stage(recipe: Recipe, state: State) -> Any:
    """What of the field is in use at a state's step."""
    return recipe.scene.field.stage(annealing.progress(state.step, recipe))


def penalties(
    r: Rendering, camera: Camera, p, weights: RegulariseSettings
) -> tuple[jax.Array, Logs]:
    """Weighted sum of the regularisers, meaned over v views, and each unweighted term.

    Args:
        r, camera: leaves with leading axis v.
        p: [] progress.
    """
    early, late = 1.0 - ramp(p, 0.0, weights.early_until), p
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
        weight = getattr(weights, name)
        if weight:
            seen = (r, camera) if name in with_camera else r
            terms[name] = jnp.mean(jax.vmap(term)(seen))
            total += weight * part * terms[name]
    return total, terms


def _as_pictured(recipe: Recipe, params, state: State, shared: Shared, key):
    """How far the reference views are from the pictures, in all, and each term's mean over them."""
    key = jax.random.fold_in(key, recipe.camera.views + 1)
    assert shared.reference is not None
    distance, parts = _from_picture(recipe, params, state, None, shared.reference, key)
    found = [parts]
    for index, (azimuth, picture) in enumerate(shared.others):
        own = jax.random.fold_in(key, index)
        more, parts = _from_picture(recipe, params, state, azimuth, picture, own)
        distance, found = distance + more, [*found, parts]
    return distance, parts if len(found) == 1 else _means(found)


def _from_picture(recipe: Recipe, params, state: State, azimuth, picture: Reference, key):
    """How far one reference view is from its picture, see `reference.distance`."""
    camera = reference.camera_of(picture.elevation, recipe.camera, azimuth)
    normals = analytic_normals if picture.normal is not None else None
    picture, offset = reference.part_of(picture, recipe.render.resolution, key)
    views = jax.tree.map(lambda leaf: leaf[None], camera)
    rendering = _render(recipe, params, state, views, None, key, normals, offset)
    rendering = jax.tree.map(lambda leaf: leaf[0], rendering)
    return reference.distance(rendering, picture, camera, recipe.reference)


def _means(found: list[Logs]) -> Logs:
    """Of each term over those who have it."""
    names = {name for one in found for name in one}
    each = {name: [one[name] for one in found if name in one] for name in names}
    return {name: sum(values[1:], values[0]) / len(values) for name, values in each.items()}


def _light(key: jax.Array, camera: Camera, step, recipe: Recipe) -> PointLight | None:
    """A point light for the views, None where this run never shades.

    Steps that are not shaded get a light of ambience alone.
    """
    numbers: RenderSettings = recipe.render
    if numbers.shading_from >= 1.0 or numbers.shading_probability == 0.0:
        return None
    light_key, choice_key = jax.random.split(key)
    first = jax.tree.map(lambda leaf: leaf[0], camera)
    light = sample_light(light_key, first, numbers.textureless_probability)
    on = jax.random.uniform(choice_key) < numbers.shading_probability
    on = on & (step >= numbers.shading_from * recipe.steps)
    return light._replace(
        ambient=jnp.where(on, light.ambient, 1.0),
        diffuse=jnp.where(on, light.diffuse, 0.0),
        textureless=jnp.where(on, light.textureless, 0.0),
    )


def _render(
    recipe: Recipe, params, state: State, cameras: Camera, light, key, normals=None, offset=(0, 0)
) -> Rendering:
    """The views of v cameras, leaves with leading axis v."""
    numbers, count = recipe.render, cameras.fov_y.shape[0]
    normals = analytic_normals if recipe.regularise.convexity else normals

    def view(camera, key, background):
        return recipe.scene_of(False).render(
            params,
            camera,
            key,
            stage=_stage(recipe, state),
            background=background,
            height=numbers.resolution,
            width=numbers.resolution,
            samples_per_ray=numbers.samples,
            chunk=step_chunk(numbers.resolution, numbers.samples),
            occupancy=state.occupancy,
            shading=light,
            normals=normals,
            normals_at="surface",
            offset=offset,
        )

    keys, backgrounds = jax.random.split(key, count), None
    if numbers.background == "random":
        colour_key = jax.random.fold_in(key, count)
        backgrounds = jax.vmap(random_colour)(jax.random.split(colour_key, count))
    return jax.vmap(view)(cameras, keys, backgrounds)


def _pull(
    prior: Prior, recipe: Recipe, shared: Shared, key, pictures, noise, state: State,
    viewpoints: Viewpoint,
):  # fmt: skip
    """The gradients on rendered views [v, H, W, k] and on their latents.

    Also the state of the network that the method trains, after a step on them, and what is logged.
    In latents it is the method's gradient through the encoder. In pictures it is the distance to
    the one-step prediction that this gradient implies, decoded, under the same weight:

        x - xhat = s_t gradient / weight_t,    on a picture y: weight_t / s_t (y - D(xhat)).
    """
    t = annealing.run_timestep(state.step, recipe, prior.schedule)
    encode, share = jax.vmap(partial(prior.encode, shared.prior)), recipe.optimise.image_space
    x, pull_encoder = (encode(pictures), None) if share == 1 else jax.vjp(encode, pictures)
    seen = method_step.Seen(t, state.step, state.method, state.ode, viewpoints)
    grad_x, logs = method_step.gradient(prior, recipe, shared, key, x, noise, seen)
    train_key = jax.random.fold_in(key, 2)
    method, learned = method_step.train(prior, recipe, shared, train_key, x, seen)
    grad_pictures = jnp.zeros_like(pictures)
    if pull_encoder is not None:
        grad_pictures += (1 - share) * pull_encoder(grad_x)[0]
    if share:
        strength = recipe.method.weight(prior.schedule, t) / prior.schedule.s(t)
        target = jax.vmap(partial(prior.decode, shared.prior))(x - grad_x / strength)
        target = jax.image.resize(target, pictures.shape, "linear")
        grad_pictures += share * strength * (pictures - target)
    return grad_pictures, grad_x, method, logs | learned
