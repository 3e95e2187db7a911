"""A picture in a prompt's place: what the prior is told, its kept ODEs, the reference view."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from dsd_jax import ode
from dsd_jax.distillation import METHODS
from dsd_jax.engine import memory
from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.priors import load_prior, zero123
from dsd_jax.priors.gaussian import GaussianMixture
from dsd_jax.recipe import kept_ode, method_step, reference
from dsd_jax.recipe.state import init_state, make_scene, seed_noise
from dsd_jax.recipe.step import Recipe, make_cache, make_step
from dsd_jax.recipe.viewpoints import (
    Picture,
    Shared,
    Viewpoint,
    camera_at,
    condition,
    sample_viewpoints,
)
from dsd_jax.rendering.agreement import iou, psnr
from dsd_jax.rendering.cameras import orbit, rays
from dsd_jax.rendering.volume import Rendering
from dsd_jax.schedule import NoiseSchedule

SHAPE = (4, 4, 3)
RED, BLUE = jnp.array([1.0, -1.0, -1.0]), jnp.array([-1.0, -1.0, 1.0])


@struct.dataclass
class Sides(zero123.Prior):
    """Whatever the picture shows is red in front and blue behind, in the middle of a white picture.

    The lower the view than the picture's, the darker.
    """

    @property
    def latent_shape(self):
        return SHAPE

    @property
    def image_size(self):
        return SHAPE[0]

    def encode(self, params, image):
        return 2 * jax.image.resize(image, SHAPE, "linear") - 1

    def init_adapter(self, key, params, rank):
        return jnp.zeros(3)

    def adapt(self, params, adapter):
        return adapter

    def denoiser_at(self, params, image, pose):
        front = (1 + pose[2]) / 2
        colour = image.embedding[0] * (front * RED + (1 - front) * BLUE) - pose[0]
        mean = jnp.ones(SHAPE).at[1:3, 1:3].set(colour)

        def denoiser_at(scale):
            guided = 1 + scale * (mean - 1)
            mixture = GaussianMixture(jnp.zeros(1), guided[None], jnp.array(1e-3))
            return lambda x, t: mixture.eps(self.schedule, x, t)

        return denoiser_at


@pytest.fixture(scope="module")
def prior():
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)
    networks: Any = None
    return Sides(None, schedule, networks, Path())


@pytest.fixture(scope="module")
def picture():
    """A red disc of half the frame's width on white, from 10 degrees above the horizon."""
    y, x = jnp.mgrid[:32, :32]
    mask = (jnp.hypot(y - 15.5, x - 15.5) < 8).astype(jnp.float32)
    rgb = 1 - mask[..., None] * jnp.array([0.0, 1.0, 1.0])
    image = zero123.ImageConditioning(jnp.ones((1, 3)), jnp.zeros(SHAPE))
    return Picture(image, jnp.deg2rad(10.0), rgb, mask)


@pytest.fixture(scope="module")
def told(settings):
    """The settings of a picture."""
    return dataclasses.replace(
        settings, background="white", view_prompts="none", ode="exact", guidance_scale=1.0,
        ode_azimuth_bins=6, ode_elevation_bins=2, elevation_min_deg=-10.0, elevation_max_deg=50.0,
    )  # fmt: skip


# ---- what the prior is told ----------------------------------------------------------------------


def test_the_prior_is_told_the_way_from_the_picture_s_camera(prior, picture, told):
    """To the back and 20 degrees up: polar angle -20, azimuth 180 degrees, distance the same."""

    class Echo(Sides):
        def denoiser_at(self, params, image, pose):
            return pose

    echo: Any = Echo(None, prior.schedule, prior.networks, Path())
    view = Viewpoint(jnp.pi, jnp.deg2rad(30.0))
    pose = condition(echo, None, picture, view, camera_at(view, told), told)
    np.testing.assert_allclose(pose, [-np.deg2rad(20), 0, -1, 0], atol=1e-6)
    stable = condition(echo.replace(pose_kind="elevation"), None, picture, view, None, told)
    np.testing.assert_allclose(stable[3], np.deg2rad(80), rtol=1e-6)


@pytest.mark.parametrize("mode", ["nodes", "table"])
@pytest.mark.parametrize(("views", "noise"), [(1, "shared"), (3, "shared"), (2, "own")])
def test_kept_odes_are_those_of_the_bins_in_azimuth_and_elevation(
    prior, picture, told, mode, views, noise
):
    """Left is not right, high is not low; views go one by one, each to its own bin."""
    told = dataclasses.replace(told, ode=mode, views=views, view_noise=noise)
    noises = seed_noise(5, SHAPE, told)
    cache = jax.jit(lambda n: kept_ode.build(prior, None, picture, n, told, jnp.float32))(noises)
    centres = kept_ode.centres(prior, told)
    assert centres.azimuth.shape == (6 * 2,)
    bins = [kept_ode.bin_of(prior, Viewpoint(*at), told)[0] for at in zip(*centres, strict=True)]
    assert sorted(map(int, bins)) == list(range(12))
    last, own = (noises, cache) if views == 1 else (noises[-1], cache)
    if noise == "own":
        own = jax.tree.map(lambda leaf: leaf[-1], cache)
    t = kept_ode.times_of(told, prior.schedule)[3]
    for at in (0, 5, 11):
        view = Viewpoint(centres.azimuth[at] + 0.1, centres.elevation[at] - 0.1)
        found = kept_ode.eps_at(own, prior, None, picture, view, told)(t)
        centre = Viewpoint(centres.azimuth[at], centres.elevation[at])
        denoiser = condition(prior, None, picture, centre, camera_at(centre, told), told)(1.0)
        exact = ode.integrate(denoiser, prior.schedule, last, ode.linear_grid(11), t).eps_t
        np.testing.assert_allclose(found, exact, atol=1e-4)


def test_sampled_viewpoints_reach_every_bin(prior, told):
    keys = jax.random.split(jax.random.key(0), 200)
    drawn = jax.vmap(lambda key: sample_viewpoints(key, told)[0])(keys)
    drawn = jax.tree.map(lambda angle: angle[:, 0], drawn)
    index, _ = jax.vmap(lambda view: kept_ode.bin_of(prior, view, told))(drawn)
    centres = kept_ode.centres(prior, told)
    assert set(map(int, index)) == set(range(12))
    off = jnp.mod(drawn.azimuth - centres.azimuth[index] + jnp.pi, 2 * jnp.pi) - jnp.pi
    assert jnp.abs(off).max() <= jnp.pi / 6 + 1e-5
    assert jnp.abs(drawn.elevation - centres.elevation[index]).max() <= np.deg2rad(15) + 1e-5


# ---- the step ------------------------------------------------------------------------------------


def run(prior, picture, settings, seeds, steps=3, method="dsd"):
    """The states of seeds, together, after some steps; and the last step's metrics."""
    recipe = Recipe(make_scene(settings), prior, METHODS[method], settings)
    shared = Shared(None, picture)
    step, fill = make_step(recipe), make_cache(recipe)

    @jax.jit
    def all_steps(seeds):
        states = jax.vmap(lambda s: init_state(s, SHAPE, recipe.scene, settings))(seeds)
        if fill:
            states = jax.vmap(fill, in_axes=(0, None))(states, shared)
        step_all = jax.vmap(step, in_axes=(0, None))
        states, metrics = step_all(states, shared)
        return jax.lax.fori_loop(1, steps, lambda _, s: step_all(s[0], shared), (states, metrics))

    return all_steps(jnp.asarray(seeds, jnp.uint32))


def test_a_seed_alone_is_the_seed_among_others(prior, picture, told):
    told = dataclasses.replace(told, ode="table")
    together, alone = (run(prior, picture, told, seeds)[0] for seeds in ([3, 7], [7]))
    for a, b in zip(jax.tree.leaves(together.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(a[1], b[0], rtol=1e-4, atol=1e-5)
        assert not np.allclose(a[0], a[1], atol=1e-5) or a[0].size < 4


def test_the_object_becomes_what_the_picture_shows_and_the_prior_says_of_the_back(
    prior, picture, told
):
    told = dataclasses.replace(
        told, steps=120, resolution=16, samples=12, reference_colour=100.0, reference_mask=30.0
    )
    states, metrics = run(prior, picture, told, [0], steps=120)
    assert {"reference_colour", "reference_mask"} <= metrics.keys()
    params, scene = jax.tree.map(lambda leaf: leaf[0], states.params), make_scene(told)

    @jax.jit
    def seen(camera):
        return scene.render(params, camera, height=32, width=32, samples_per_ray=32)

    front = seen(reference.camera_of(picture.elevation, told))
    back = seen(camera_at(Viewpoint(jnp.pi, jnp.deg2rad(10.0)), told))
    assert psnr(front.rgb, picture.rgb) > 15
    assert iou(front.opacity, picture.mask) > 0.75
    middle = jnp.stack([view.rgb[13:19, 13:19].mean((0, 1)) for view in (front, back)])
    assert middle[1, 2] > middle[0, 2] + 0.2 and middle[0, 0] > middle[1, 0] + 0.2


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"nfsd"}))
def test_every_method_that_needs_no_other_prompt_has_a_gradient(prior, picture, told, method):
    """Away from what the prior wants, for one random view."""
    recipe = Recipe(make_scene(told), prior, METHODS[method], told)
    state = init_state(0, SHAPE, recipe.scene, told, method_step.initial(recipe))
    views = sample_viewpoints(jax.random.key(1), told)
    x, shared = jnp.full((1, *SHAPE), 0.5), Shared({"unet": None}, picture)
    grad, _ = jax.jit(
        lambda: method_step.gradient(
            recipe, shared, jax.random.key(2), x, state.seed_noise, 500, state, *views
        )
    )()
    assert grad.shape == x.shape and jnp.isfinite(grad).all()
    zero = method in ("vsd", "asd")  # the adapter changes nothing yet
    assert (jnp.abs(grad).max() > 1e-3) != zero


def test_views_of_the_visible_side_forget_their_seed(prior, picture, told):
    """With eta 0 and visible_eta 1: SDS near the picture, DSD behind, a mixture in between."""
    azimuths = jnp.deg2rad(jnp.array([0.0, -55.0, 75.0, 200.0]))

    def gradients(visible_eta, seed):
        settings = dataclasses.replace(
            told, views=4, eta=0.0, anchor="trajectory", visible_eta=visible_eta
        )
        recipe = Recipe(make_scene(settings), prior, METHODS["dsd"], settings)
        state = init_state(seed, SHAPE, recipe.scene, settings, method_step.initial(recipe))
        views = Viewpoint(azimuths, jnp.full(4, 0.2))
        cameras = jax.vmap(lambda *at: camera_at(Viewpoint(*at), settings))(*views)
        noise = jnp.broadcast_to(jax.random.normal(jax.random.key(seed), SHAPE), (4, *SHAPE))
        key, x, shared = jax.random.key(2), jnp.full((4, *SHAPE), 0.5), Shared({}, picture)
        grad, _ = method_step.gradient(recipe, shared, key, x, noise, 500, state, views, cameras)
        return grad

    found, other, own = (jax.jit(partial(gradients, *a))() for a in ((1.0, 3), (1.0, 4), (0.0, 3)))
    same = [np.allclose(found[i], other[i], atol=1e-5) for i in range(4)]
    assert same == [True, True, False, False]
    assert [np.allclose(found[i], own[i], atol=1e-5) for i in range(4)] == [False] * 3 + [True]


def test_the_reference_view_counts_in_the_memory_of_a_step(zero123_file, told):
    """One view more than the random ones: three and it are twice one and it."""
    prior, scene = load_prior(zero123_file), make_scene(told)
    one, three = (
        memory.needs(prior, scene, dataclasses.replace(told, views=views)) for views in (1, 3)
    )
    assert three.rendering == 2 * one.rendering and three.network == 3 * one.network


# ---- the terms, by hand --------------------------------------------------------------------------


def rendering(**parts):
    """Of 2 x 2 pixels; what a test does not give is empty."""
    empty = dict.fromkeys(Rendering._fields)
    return Rendering(**(empty | {"opacity": jnp.zeros((2, 2))} | parts))


def test_colour_and_mask_are_mean_squares(picture, told):
    """Half of the pixels are off by 0.5 in one channel of three, and by 1 in opacity."""
    small = picture._replace(rgb=jnp.ones((2, 2, 3)), mask=jnp.zeros((2, 2)))
    rgb = jnp.ones((2, 2, 3)).at[0, :, 0].set(0.5)
    seen = rendering(rgb=rgb, opacity=jnp.zeros((2, 2)).at[0].set(1.0))
    told = dataclasses.replace(told, reference_colour=12.0, reference_mask=2.0)
    camera = reference.camera_of(picture.elevation, told)
    total, terms = reference.distance(seen, small, camera, told)
    np.testing.assert_allclose(terms["reference_colour"], 0.25 / 6)
    np.testing.assert_allclose(terms["reference_mask"], 0.5)
    np.testing.assert_allclose(total, 12 * 0.25 / 6 + 2 * 0.5)
    alone, left = reference.distance(
        seen, small, camera, dataclasses.replace(told, reference_mask=0.0)
    )
    assert left.keys() == {"reference_colour"}
    np.testing.assert_allclose(alone, 0.5)


def test_depth_is_compared_but_for_scale_and_offset():
    ours, mask = jnp.array([[1.0, 2.0], [3.0, 9.0]]), jnp.array([[1.0, 1.0], [1.0, 0.0]])
    assert reference.uncorrelated(ours, 0.1 * ours - 3, mask) == pytest.approx(0, abs=1e-6)
    assert reference.uncorrelated(ours, -ours, mask) == pytest.approx(2, abs=1e-6)
    # Of (1, 2, 3) and (1, 3, 2): deviations (-1, 0, 1) and (-1, 1, 0), correlation 1 / 2.
    assert reference.uncorrelated(ours, jnp.array([[1.0, 3.0], [2.0, 0.0]]), mask) == pytest.approx(
        0.5, abs=1e-6
    )
    flat = jax.grad(reference.uncorrelated)(jnp.ones((2, 2)), ours, mask)
    assert jnp.isfinite(flat).all()


def test_normals_are_compared_by_angle_in_the_camera_s_frame():
    """60 degrees off in one pixel of two; the third has no normal, the fourth is outside."""
    x, up = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 0.0])
    tilted = 0.5 * x + 0.75**0.5 * up
    ours = jnp.stack([jnp.stack([x, tilted]), jnp.stack([x, x])])
    theirs = jnp.stack([jnp.stack([2 * x, x]), jnp.stack([0 * x, up])])
    mask = jnp.array([[1.0, 1.0], [1.0, 0.0]])
    assert reference.turned(ours, theirs, mask) == pytest.approx(0.25)
    side = orbit(jnp.pi / 2, 0.0, 2.7, 0.7)  # stands on +x: a normal along +x looks at it
    seen = rendering(normal=jnp.broadcast_to(x, (2, 2, 3)))
    np.testing.assert_allclose(reference.in_camera(seen, side)[0, 0], [0, 0, 1], atol=1e-6)


def test_depth_along_the_axis_is_that_of_a_plane():
    camera = orbit(0.3, 0.2, 2.7, 1.2)
    _, directions = rays(camera, 3, 3)
    forward = -camera.camera_to_world[:3, 2]
    plane = 2 / jnp.einsum("hwi,i->hw", directions, forward)
    seen = rendering(depth=plane, directions=directions)
    np.testing.assert_allclose(reference.along_axis(seen, camera), 2, rtol=1e-5)


def test_a_part_of_the_picture_lies_where_its_rays_go(picture):
    """Each pixel holds the first two coordinates of its own ray: so do those of the part's rays."""
    camera = orbit(0.0, 0.3, 2.7, 0.7)
    _, fine = rays(camera, 6, 6)
    told = picture._replace(rgb=fine, mask=fine[..., 0], depth=fine[..., 1], normal=None)
    seen = set()
    for key in range(12):
        part, offset = reference.part_of(told, 2, jax.random.key(key))
        _, ours = rays(camera, 2, 2, offset)
        np.testing.assert_allclose(part.rgb, ours, atol=1e-6)
        np.testing.assert_allclose(part.mask, ours[..., 0], atol=1e-6)
        np.testing.assert_allclose(part.depth, ours[..., 1], atol=1e-6)
        assert part.normal is None
        seen.add(tuple(np.round(3 * (np.asarray(offset) + 0.5) - 0.5).astype(int)))
    assert {row for row, _ in seen} == {column for _, column in seen} == {0, 1, 2}


def test_a_picture_that_does_not_divide_is_resized_and_a_small_one_taken_whole(picture):
    flat = picture._replace(rgb=jnp.full((7, 7, 3), 0.25), mask=jnp.ones((7, 7)))
    part, _ = reference.part_of(flat, 3, jax.random.key(0))
    assert part.rgb.shape == (3, 3, 3)
    np.testing.assert_allclose(part.rgb, 0.25, atol=1e-6)
    small, offset = reference.part_of(flat, 9, jax.random.key(0))
    assert small.mask.shape == (9, 9)
    np.testing.assert_array_equal(offset, 0)


def test_a_picture_is_averaged_down():
    fine = jnp.kron(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.ones((4, 4)))
    assert reference.resized(fine, (2, 2)).mean() == pytest.approx(0.5)
    assert reference.resized(jnp.ones((8, 8, 3)), (2, 2)).shape == (2, 2, 3)
