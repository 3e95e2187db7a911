"""One step of one seed."""

import dataclasses
from dataclasses import dataclass
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flat_colours import FlatColours

from dsd_jax.distillation import NOTHING, Method
from dsd_jax.engine.task import make_task
from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.priors.base import Defaults
from dsd_jax.priors.gaussian import GaussianMixture
from dsd_jax.recipe import annealing, reference
from dsd_jax.recipe.recipe import changed, with_method
from dsd_jax.recipe.state import init_state, optimiser, step_key
from dsd_jax.recipe.step import (
    _pull,
    _render,
    make_fill,
    make_refresh,
    make_step,
    penalties,
)
from dsd_jax.recipe.viewpoints import Reference, Shared, sample_viewpoints, viewpoint_at
from dsd_jax.rendering.agreement import iou, psnr
from dsd_jax.schedule import NoiseSchedule

TARGET, SIZE = 0.25, 4
SHAPE = (SIZE, SIZE, 3)


@dataclass(frozen=True)
class ToTarget(Method):
    """Its gradient is that of 0.5 |x - TARGET|^2."""

    def gradient(self, key, denoiser_at, schedule, x, seed_noise, t, given=NOTHING):
        return x - TARGET, {"t": jnp.asarray(t)}


@pytest.fixture(scope="module")
def to_target(recipe):
    return dataclasses.replace(recipe, method=ToTarget())


def state_of(recipe, seed=0):
    return init_state(seed, SHAPE, recipe)


def test_step_descends_the_surrogate_and_the_regularisers(task, to_target, views=2):
    """Two steps equal Adam on the sum of 0.5 |x - target|^2 / views and the penalties."""
    recipe = changed(to_target, views=views, opaque=0.3, distortion=0.2)
    step = jax.jit(make_step(task.prior, recipe))
    state, _ = step(state_of(recipe), task.shared)
    after, metrics = step(state, task.shared)
    keys = jax.random.split(step_key(state.seed, state.step), 4)
    _, camera = sample_viewpoints(keys[0], recipe.camera)

    @jax.jit
    @jax.grad
    def gradient(params):
        rendering = _render(recipe, params, state, camera, None, keys[2])
        x = jax.vmap(lambda image: task.prior.encode(None, image))(rendering.rgb)
        p = annealing.progress(state.step, recipe)
        return (
            0.5 * jnp.sum((x - TARGET) ** 2) / views
            + penalties(rendering, camera, p, recipe.regularise)[0]
        )

    grads = gradient(state.params)
    updates, _ = optimiser(recipe).update(grads, state.opt_state, state.params)
    chex.assert_trees_all_close(
        after.params, optax.apply_updates(state.params, updates), rtol=1e-3, atol=1e-5
    )
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.global_norm(grads)), rel=1e-3)
    assert int(after.step) == 2
    np.testing.assert_array_equal(after.seed_noise, state.seed_noise)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("sds", {"views": 2, "view_noise": "own"}),
        ("nfsd", {"views": 2}),
        ("cfd", {"fresh_share": 0.1, "view_noise": "attached"}),
        ("dsd", {"views": 2, "view_noise": "attached", "background": "random"}),
        ("dsd", {"total_variation": 1.0, "normal_smoothness": 1.0, "kind": "exact"}),
        ("dsd", {"shading_from": 0.0, "shading_probability": 1.0, "convexity": 0.1}),
    ],
)
def test_methods_and_recipes_go_together(prior, recipe, method, changes):
    recipe = changed(with_method(recipe, method), **changes)
    task = make_task(prior, "a red thing", recipe)
    before = state_of(recipe)
    after, metrics = jax.jit(make_step(task.prior, recipe))(before, task.shared)
    chex.assert_tree_all_finite((after.params, metrics))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, before)
    assert float(metrics["loss"]) > 0


@pytest.mark.parametrize("weighting", ["variance", "one-step"])
def test_pictures_pull_where_latents_do(task, to_target, weighting):
    """With an encoder x = 2 rgb - 1, 0.5 |x - target|^2 pulls four times as hard in latents.

    In pictures the one-step prediction that the gradient implies is x - gradient s / weight.
    """

    def grad_rgb(share):
        recipe = changed(to_target, resolution=SIZE, weighting=weighting, image_space=share)
        rgb = jax.random.uniform(jax.random.key(1), (1, SIZE, SIZE, 3))
        views, _ = sample_viewpoints(jax.random.key(2), recipe.camera)
        state, key = state_of(recipe), jax.random.key(3)
        pulls = _pull(task.prior, recipe, task.shared, key, rgb, state.seed_noise, state, views)
        return np.asarray(pulls[0]), np.asarray(2 * rgb - 1 - TARGET)

    latents, error = grad_rgb(0.0)
    np.testing.assert_allclose(latents, 2 * error, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grad_rgb(1.0)[0], error / 2, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(grad_rgb(0.5)[0], 1.25 * error, rtol=1e-3, atol=1e-4)


def test_annealing_reaches_the_method(task, to_target):
    """A quarter of the way from 0.98 to 0.3 linearly."""
    recipe = changed(to_target, annealing="linear")
    state = dataclasses.replace(state_of(recipe), step=jnp.int32(10))
    metrics = jax.jit(make_step(task.prior, recipe))(state, task.shared)[1]
    assert float(metrics["t"]) == 810


def test_refresh_finds_the_matter(recipe):
    state = state_of(recipe)
    assert state.occupancy.occupied.all()
    refreshed = jax.jit(make_refresh(recipe))(state)
    chex.assert_trees_all_equal(refreshed.params, state.params)
    assert refreshed.occupancy.occupied[4, 4, 4]
    assert not refreshed.occupancy.occupied[0, 0, 0]


def test_every_view_of_a_step_has_its_own_random_background(recipe):
    recipe = changed(recipe, views=2, background="random")
    state, (_, camera) = state_of(recipe), sample_viewpoints(jax.random.key(0), recipe.camera)

    @jax.jit
    @jax.vmap
    def corners(key):
        return _render(recipe, state.params, state, camera, None, key).rgb[:, 0, 0]

    seen = corners(jax.random.split(jax.random.key(1), 8)).reshape(-1, 3)
    assert len(np.unique(np.asarray(seen), axis=0)) == 16
    assert 0 <= seen.min() < 0.2 and 0.8 < seen.max() <= 1


def test_the_stage_of_the_field_reaches_what_is_rendered_and_marked_occupied(recipe):
    """At p = 0.5 nothing is taken off the density; at p = 0.9 more than there is."""
    recipe = changed(recipe, density_floor=1e3, floor_from=0.5)
    _, camera = sample_viewpoints(jax.random.key(0), recipe.camera)

    @jax.jit
    def at(step):
        state = dataclasses.replace(state_of(recipe), step=step)
        seen = _render(recipe, state.params, state, camera, None, jax.random.key(1))
        return seen.opacity.max(), make_refresh(recipe)(state).occupancy.occupied.any()

    (before, matter), (after, none) = at(20), at(36)
    assert before > 0.5 and after == 0
    assert matter and not none


def run(prior, recipe, shared, seeds, steps):
    """The states of seeds, together, after some steps; and the last step's metrics."""
    step, fill = make_step(prior, recipe), make_fill(prior, recipe)

    @jax.jit
    def all_steps(seeds):
        states = jax.vmap(partial(init_state, latent_shape=SHAPE, recipe=recipe))(seeds)
        if fill:
            states = jax.vmap(fill, in_axes=(0, None))(states, shared)
        step_all = jax.vmap(step, in_axes=(0, None))
        return jax.lax.scan(lambda now, _: step_all(now, shared), states, length=steps)

    states, metrics = all_steps(jnp.asarray(seeds, jnp.uint32))
    return states, jax.tree.map(lambda values: values[-1], metrics)


def test_all_kinds_of_odes_make_the_same_objects_where_bins_lose_nothing(prior, recipe):
    """A prior that tells no views apart has one bin; what is left is bfloat16 and the table."""
    wide = dataclasses.replace(prior, variance=0.5)
    exact, nodes, table = (changed(recipe, steps=8, eta=0.0, kind=kind)
                           for kind in ("exact", "nodes", "table"))  # fmt: skip
    task = make_task(wide, "a red thing", exact)
    start = jax.vmap(partial(init_state, latent_shape=SHAPE, recipe=exact))(jnp.array([3, 4]))
    (states, metrics), *others = (
        run(task.prior, one, task.shared, [3, 4], 8) for one in (exact, nodes, table)
    )
    assert "ode_error" not in metrics and "ode_error" in others[1][1]

    def size(change):
        return jnp.sqrt(jnp.mean(jnp.square(change)))

    for first, a, b, c in zip(
        *(jax.tree.leaves(s.params) for s in (start, states, *(o[0] for o in others))), strict=True
    ):
        moved = a - first
        assert size(b - a) < 1e-3 * size(moved) and size(c - a) < 1e-3 * size(moved)
        assert size(b - a) > 0 and size(c - a) > 0
        assert size(moved[1] - moved[0]) > 0.1 * size(moved)


# ---- a picture -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sides(Defaults):
    """What stands in the middle of a white picture is red in front and blue behind."""

    params = None
    latent_shape: tuple = SHAPE
    encode, decode = FlatColours.encode, FlatColours.decode

    @property
    def schedule(self):
        return NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)

    def denoiser_at(self, params, condition, viewpoints):
        front = (1 + jnp.cos(viewpoints.azimuth)) / 2
        colour = front * jnp.array([1.0, -1, -1]) + (1 - front) * jnp.array([-1.0, -1, 1])
        mean = jnp.ones(SHAPE).at[1:3, 1:3].set(colour)

        def denoiser_at(scale):
            guided = 1 + scale * (mean - 1)
            mixture = GaussianMixture(jnp.zeros(1), guided[None], jnp.array(1e-3))
            return lambda x, t: mixture.eps(self.schedule, x, t)

        return denoiser_at


def test_the_object_becomes_what_the_picture_shows_and_the_prior_says_of_the_back(recipe):
    """A red disc of half the frame's width on white, from 10 degrees above the horizon."""
    recipe = changed(
        recipe, steps=120, resolution=16, samples=12, background="white", kind="exact",
        elevation_min_deg=-10.0, elevation_max_deg=50.0, colour=100.0, mask=30.0,
    )  # fmt: skip
    y, x = jnp.mgrid[:32, :32]
    mask = (jnp.hypot(y - 15.5, x - 15.5) < 8).astype(jnp.float32)
    rgb = 1 - mask[..., None] * jnp.array([0.0, 1.0, 1.0])
    picture = Reference(jnp.deg2rad(10.0), rgb, mask)
    shared = Shared(None, None, reference=picture)
    states, metrics = run(Sides(), recipe, shared, [0], steps=120)
    assert {"reference_colour", "reference_mask"} <= metrics.keys()
    params = jax.tree.map(lambda leaf: leaf[0], states.params)

    @jax.jit
    def seen(camera):
        return recipe.scene.render(params, camera, height=32, width=32, samples_per_ray=32)

    front = seen(reference.camera_of(picture.elevation, recipe.camera))
    back = seen(viewpoint_at(jnp.pi, jnp.deg2rad(10.0), recipe.camera)[1])
    assert psnr(front.rgb, picture.rgb) > 15
    assert iou(front.opacity, picture.mask) > 0.75
    middle = jnp.stack([view.rgb[13:19, 13:19].mean((0, 1)) for view in (front, back)])
    assert middle[1, 2] > middle[0, 2] + 0.2 and middle[0, 0] > middle[1, 0] + 0.2
