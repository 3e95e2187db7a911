"""One step of one seed."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsd_jax.distillation import METHODS
from dsd_jax.distillation.common import Method
from dsd_jax.recipe.method_step import method_settings
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.state import init_state, make_scene, optimiser
from dsd_jax.recipe.step import (
    WEIGHTINGS,
    Recipe,
    Shared,
    _pull,
    _render,
    floor_part,
    make_refresh,
    make_step,
    open_levels,
    penalties,
    ramp,
    sample_viewpoints,
)
from dsd_jax.recipe.viewpoints import Text, Viewpoint, condition, view_index

TARGET, SIZE = 0.25, 4


def pull_to_target(key, denoiser_at, schedule, x, seed_noise, t):
    """A method whose gradient is that of 0.5 |x - TARGET|^2."""
    return x - TARGET, {"t": jnp.asarray(t)}


def recipe_of(task, **changes):
    settings = dataclasses.replace(task.settings, **changes)
    return Recipe(task.scene, task.prior, Method(pull_to_target), settings)


def state_of(recipe, seed=0):
    return init_state(seed, recipe.prior.latent_shape, recipe.scene, recipe.settings)


def test_step_descends_the_surrogate_and_the_regularisers(task, views=2):
    """Two steps equal Adam on the sum of 0.5 |x - target|^2 / views and the penalties."""
    recipe = recipe_of(task, views=views, opaque=0.3, distortion=0.2)
    shared, settings = Shared(None, task.text), recipe.settings
    step = jax.jit(make_step(recipe))
    state, _ = step(state_of(recipe), shared)
    after, metrics = step(state, shared)

    from dsd_jax.recipe import step as module

    keys = jax.random.split(module.step_key(state.seed, state.step), 4)
    _, camera = sample_viewpoints(keys[0], settings)

    @jax.jit
    @jax.grad
    def gradient(params):
        rendering = module._render(recipe, params, state, camera, None, keys[2])
        x = jax.vmap(lambda image: task.prior.encode(None, image))(rendering.rgb)
        return (
            0.5 * jnp.sum((x - TARGET) ** 2) / views
            + penalties(rendering, camera, state.step, settings)[0]
        )

    grads = gradient(state.params)
    updates, _ = optimiser(settings).update(grads, state.opt_state, state.params)
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
        ("dsd", {"view_noise": "attached"}),
        ("dsd", {"views": 2, "view_noise": "attached", "background": "random"}),
        ("dsd", {"total_variation": 1.0, "normal_smoothness": 1.0, "annealing": "linear"}),
        ("dsd", {"shading_from": 0.0, "shading_probability": 1.0, "convexity": 0.1}),
    ],
)
def test_methods_and_settings_go_together(task, method, changes):
    shared = Shared(None, task.text)
    recipe = recipe_of(task, **changes)._replace(method=METHODS[method])
    state, metrics = jax.jit(make_step(recipe))(state_of(recipe), shared)
    chex.assert_tree_all_finite((state.params, metrics))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, state_of(recipe))
    assert float(metrics["loss"]) > 0


@pytest.mark.parametrize("weighting", ["variance", "one-step"])
def test_pictures_pull_where_latents_do(task, weighting):
    """With an encoder x = 2 rgb - 1, 0.5 |x - target|^2 pulls four times as hard in latents.

    In pictures the one-step prediction that the gradient implies is x - gradient s / weight.
    """
    shared, half = Shared(None, task.text), {"image_space": 0.5, "weighting": weighting}

    def grad_rgb(**changes):
        recipe = recipe_of(task, resolution=SIZE, weighting=weighting, **changes)
        rgb = jax.random.uniform(jax.random.key(1), (1, SIZE, SIZE, 3))
        viewpoint, camera = sample_viewpoints(jax.random.key(2), recipe.settings)
        state = state_of(recipe)
        pulls = _pull(recipe, shared, jax.random.key(3), rgb, state, viewpoint, camera)
        return np.asarray(pulls[0]), np.asarray(2 * rgb - 1 - TARGET)

    latents, error = grad_rgb()
    np.testing.assert_allclose(latents, 2 * error, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grad_rgb(image_space=1.0)[0], error / 2, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(grad_rgb(image_space=0.5)[0], 1.25 * error, rtol=1e-3, atol=1e-4)
    recipe = recipe_of(task, **half)._replace(method=METHODS["dsd"])
    state, metrics = jax.jit(make_step(recipe))(state_of(recipe), shared)
    chex.assert_tree_all_finite((state.params, metrics))


def test_eta_and_the_weight_reach_the_method():
    settings = Settings(t_max=0.9, t_min=0.1, eta=0.5, weighting="one-step", t_prime_offset=0.3)
    for t, eta in ((0.95, 0.0), (0.9, 0.0), (0.5, 0.25), (0.1, 0.5)):
        given = method_settings(METHODS["dsd"].gradient, t, 0, settings)
        assert float(given["eta"]) == pytest.approx(eta, abs=1e-6)
    assert given["weight"] is WEIGHTINGS["one-step"]
    assert given["offset_fraction"] == 0.3
    assert "eta" not in method_settings(METHODS["sds"].gradient, 0.5, 0, settings)


def test_refresh_finds_the_matter(task):
    recipe = recipe_of(task)
    state = state_of(recipe)
    assert state.occupancy.occupied.all()
    refreshed = jax.jit(make_refresh(recipe))(state)
    chex.assert_trees_all_equal(refreshed.params, state.params)
    assert refreshed.occupancy.occupied[4, 4, 4]
    assert not refreshed.occupancy.occupied[0, 0, 0]


def test_viewpoints_are_spread_evenly_in_the_run_framing():
    settings = Settings(views=4, elevation_min_deg=10, elevation_max_deg=20)
    for seed in range(3):
        viewpoint, camera = sample_viewpoints(jax.random.key(seed), settings)
        np.testing.assert_allclose(np.diff(viewpoint.azimuth), np.pi / 2, rtol=1e-5)
        assert 0 <= float(viewpoint.azimuth[0]) < 2 * np.pi
        assert len(set(viewpoint.elevation.tolist())) == 1
        assert 10 <= np.rad2deg(float(viewpoint.elevation[0])) <= 20
        position = camera.camera_to_world[:, :3, 3]
        np.testing.assert_allclose(jnp.linalg.norm(position, axis=-1), 2.7, rtol=1e-5)
        np.testing.assert_allclose(position[:, 1], 2.7 * jnp.sin(viewpoint.elevation), rtol=1e-5)
        np.testing.assert_allclose(camera.fov_y, np.deg2rad(40), rtol=1e-6)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "index"),
    [(0, 0, 0), (44, 0, 0), (-44, 0, 0), (316, 0, 0), (46, 0, 1), (270, 0, 1), (180, 0, 2),
     (136, 0, 2), (0, 61, 3), (0, 59, 0)],
)  # fmt: skip
def test_words_for_a_view(azimuth, elevation, index):
    assert int(view_index(Viewpoint(jnp.deg2rad(azimuth), jnp.deg2rad(elevation)))) == index


class Echo:
    """Stands in for a prior: what it is given comes back."""

    has_camera = False

    def denoiser_at(self, params, text, uncond, camera=None, num_views=1):
        return text, uncond, camera, num_views

    def perp_neg_at(self, params, view_prompts, uncond):
        return view_prompts, uncond


ECHOED = Text(jnp.full((1, 2), 9.0), jnp.arange(8.0).reshape(4, 1, 2), jnp.zeros((1, 2)))


@pytest.mark.parametrize("views", [1, 4])
@pytest.mark.parametrize(("view_prompts", "expected"), [("words", [4.0, 5.0]), ("none", [9.0] * 2)])
def test_priors_without_camera_are_told_the_view_in_words(settings, view_prompts, expected, views):
    settings = dataclasses.replace(settings, view_prompts=view_prompts, views=views)
    behind = Viewpoint(jnp.pi, jnp.zeros(()))
    words, uncond, camera, together = condition(Echo(), None, ECHOED, behind, None, settings)
    assert words.tolist() == [expected]
    assert uncond.tolist() == [[0.0, 0.0]]
    assert camera is None
    assert together == 1


@pytest.mark.parametrize(
    ("azimuth", "elevation", "words", "negatives"),
    [(45, 0, [1, 2], [[0, 1], [2, 3]]), (-90, 0, [2, 3], [[0, 1], [2, 3]]),
     (495, 59, [3, 4], [[2, 3], [0, 1]]), (180, 61, [6, 7], [[2, 3], [0, 1]])],
)  # fmt: skip
def test_words_are_blended_between_views(settings, azimuth, elevation, words, negatives):
    """Front 0 1, side 2 3, back 4 5, overhead 6 7; the negatives are the views not seen."""
    viewpoint = Viewpoint(jnp.deg2rad(azimuth), jnp.deg2rad(elevation))
    prompts, uncond = condition(Echo(), None, ECHOED, viewpoint, None, settings)
    np.testing.assert_allclose(prompts.text, [words], atol=1e-5)
    np.testing.assert_allclose(prompts.negatives, np.array(negatives)[:, None])
    assert (jnp.all(prompts.weights == 0)) == (elevation > 60)
    assert uncond.tolist() == [[0.0, 0.0]]


def test_levels_open_one_after_another():
    settings = Settings(steps=100, levels=12, start_levels=4, levels_until=0.5)
    assert [float(open_levels(step, settings)) for step in (0, 25, 50, 100)] == [4, 8, 12, 12]
    assert open_levels(0, dataclasses.replace(settings, start_levels=12)) is None


def test_density_floor_rises_late():
    settings = Settings(steps=100, late_from=0.5)
    got = [float(floor_part(step, settings)) for step in (0, 50, 70, 90, 100)]
    np.testing.assert_allclose(got, [0, 0, 0.5, 1, 1], atol=1e-6)


@pytest.mark.parametrize(("annealing", "t"), [("sqrt", 640), ("linear", 810)])
def test_annealing_reaches_the_method(task, annealing, t):
    """A quarter of the way from 0.98 to 0.3: 0.64 by the root, 0.81 linearly."""
    recipe = recipe_of(task, annealing=annealing)
    state = dataclasses.replace(state_of(recipe), step=jnp.int32(10))
    metrics = jax.jit(make_step(recipe))(state, Shared(None, task.text))[1]
    assert float(metrics["t"]) == t


def test_every_view_of_a_step_has_its_own_random_background(task):
    recipe = recipe_of(task, views=2, background="random")
    state, (_, camera) = state_of(recipe), sample_viewpoints(jax.random.key(0), recipe.settings)

    def corners(key):
        return _render(recipe, state.params, state, camera, None, key).rgb[:, 0, 0]

    seen = jax.vmap(corners)(jax.random.split(jax.random.key(1), 8)).reshape(-1, 3)
    assert len(np.unique(np.asarray(seen), axis=0)) == 16
    assert 0 <= seen.min() < 0.2 and 0.8 < seen.max() <= 1


def test_density_floor_thins_what_is_rendered_and_marked_occupied(task):
    """At p = late_from nothing is taken off; at p = 0.9 all of it, here more than there is."""
    recipe = recipe_of(task, density_floor=1e3, late_from=0.5)
    recipe = recipe._replace(scene=make_scene(recipe.settings))
    _, camera = sample_viewpoints(jax.random.key(0), recipe.settings)
    opacity, occupied = [], []
    for step in (20, 36):
        state = dataclasses.replace(state_of(recipe), step=jnp.int32(step))
        seen = _render(recipe, state.params, state, camera, None, jax.random.key(1))
        opacity.append(float(seen.opacity.max()))
        occupied.append(bool(make_refresh(recipe)(state).occupancy.occupied.any()))
    assert opacity[0] > 0.5 and opacity[1] == 0
    assert occupied == [True, False]


def test_ramp_by_hand():
    settings = Settings(steps=10)
    got = [float(ramp(step, settings, 0.2, 0.6)) for step in (0, 2, 3, 4, 6, 10)]
    np.testing.assert_allclose(got, [0, 0, 0.25, 0.5, 1, 1], atol=1e-6)
    assert [float(ramp(step, settings, 0.0, 0.0)) for step in (0, 1)] == [0, 1]


def test_methods_get_the_settings_they_take():
    settings = Settings(guidance_scale=3.0, guidance_scale_prime=None)
    assert set(method_settings(METHODS["sds"].gradient, 0.5, 0, settings)) == {
        "guidance_scale",
        "weight",
    }
    assert set(method_settings(METHODS["vsd"].update, 0.5, 0, settings)) == {"lora_rate"}
    assert method_settings(METHODS["asd"].update, 0.5, 0, settings)["gamma"] == -0.5
    assert "fresh_share" not in method_settings(METHODS["cfd"].gradient, 0.5, 0, settings)
    dsd = method_settings(METHODS["dsd"].gradient, 0.5, 0, settings)
    assert "guidance_scale_prime" not in dsd
    assert {"guidance_scale", "grid", "t_prime_min"} <= set(dsd)
    assert len(dsd["grid"]) == settings.ode_points
    guided = dataclasses.replace(settings, guidance_scale_prime=2.0)
    assert method_settings(METHODS["dsd"].gradient, 0.5, 0, guided)["guidance_scale_prime"] == 2.0
