"""What is kept of a seed's ODE, against the ODE itself."""

import dataclasses
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from told_views import SHAPE, TEXT, VARIANCE, Told

from dsd_jax import ode
from dsd_jax.priors import load_prior
from dsd_jax.priors.base import angle_from_front
from dsd_jax.priors.gaussian import GaussianMixture, ode_solution
from dsd_jax.priors.view_words import view_index
from dsd_jax.recipe import kept_ode, method_step
from dsd_jax.recipe.recipe import Recipe, changed, with_method
from dsd_jax.recipe.state import noise_of
from dsd_jax.recipe.step import make_fill
from dsd_jax.recipe.viewpoints import Shared, sample_viewpoints, viewpoint_at

SMALL = changed(
    Recipe(), guidance_scale=1.5, t_min=0.15, azimuth_bins=8, table_points=6, kind="nodes",
    elevation_max_deg=75.0,
)  # fmt: skip
KINDS = {
    "cameras": (Told("cameras"), {"views": 1}),
    "cameras, together": (Told("cameras", True), {"views": 4}),
    "cameras, together, own": (Told("cameras", True), {"views": 4, "view_noise": "own"}),
    "cameras, one by one, own": (Told("cameras"), {"views": 2, "view_noise": "own"}),
    "nothing": (Told("nothing"), {"views": 4}),
    "words": (Told("words"), {"views": 1}),
    "sides": (Told("sides"), {"views": 4}),
    "sides, own": (Told("sides"), {"views": 2, "view_noise": "own"}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def kind_of(name, **changes):
    """A prior and a recipe."""
    prior, own = KINDS[name]
    return prior, changed(SMALL, **(own | changes))


def build(prior, recipe, noise, dtype=kept_ode.STORED):
    return kept_ode.build(prior, None, TEXT, noise, recipe, dtype)


def exact(prior, recipe, noise, viewpoint, t):
    """Where the ODE of one noise stands at t', by following it."""
    method, schedule = recipe.method, prior.schedule
    denoiser = prior.denoiser_at(None, TEXT, viewpoint)(method.guidance_scale)
    return ode.integrate(denoiser, schedule, noise, ode.linear_grid(method.ode_points), t)


def found(prior, recipe, noise, kept, viewpoint, t):
    """The same from what is kept."""
    return kept_ode.ode_at(kept, prior, None, TEXT, viewpoint, recipe, noise)(t)


def one_ode(prior, recipe, noise, kept):
    """(noise, kept) of the last view where views are denoised one by one, else as they are."""
    if prior.denoises_together or recipe.camera.views == 1:
        return noise, kept
    own = recipe.view_noise == "own"
    return noise[-1], jax.tree.map(lambda leaf: leaf[-1], kept) if own else kept


@every_kind
@pytest.mark.parametrize("mode", ["nodes", "table"])
def test_at_the_centre_of_a_bin_it_is_the_ode(kind, mode):
    """Nodes at every t', a table at its own; also further round, where the views are permuted."""
    prior, recipe = kind_of(kind, kind=mode)
    noise = noise_of(3, SHAPE, recipe)
    centres = kept_ode.centres(prior, TEXT, recipe)
    times = kept_ode.times_of(recipe, prior.schedule)
    times = jnp.array([*times[:-1], *((640, 777) if mode == "nodes" else ())])
    quarters = 3 if kind == "cameras, together" else -4
    some = np.array([0, len(centres.azimuth) // 2, len(centres.azimuth) - 1])
    azimuth, elevation = centres.azimuth[some] + quarters * np.pi / 2, centres.elevation[some]
    viewpoints, _ = viewpoint_at(azimuth, elevation, recipe.camera)

    @partial(jax.jit, static_argnums=1)
    def both(noise, dtype):
        one, own = one_ode(prior, recipe, noise, build(prior, recipe, noise, dtype))

        def at(viewpoint, t):
            return (
                exact(prior, recipe, one, viewpoint, t),
                found(prior, recipe, one, own, viewpoint, t),
            )

        return jax.vmap(jax.vmap(at, in_axes=(None, 0)), in_axes=(0, None))(viewpoints, times)

    followed, kept = both(noise, jnp.float32)
    np.testing.assert_allclose(kept.eps_t, followed.eps_t, atol=1e-5)
    if mode == "nodes":
        np.testing.assert_allclose(kept.xhat_t, followed.xhat_t, atol=5e-4)
    followed, kept = both(noise, kept_ode.STORED)
    np.testing.assert_allclose(kept.eps_t, followed.eps_t, atol=0.02)


def test_fixed_views_are_those_of_one_bin_down_to_their_t():
    """t falls from 0.98 with the root of the progress: 0.64 after a quarter, 0.5 after half."""
    prior, recipe = kind_of("cameras, together", fixed_until=0.6, t_min=0.3, steps=100)
    draw = jax.jit(lambda step, key: sample_viewpoints(
        key, recipe.camera, kept_ode.fixed_views(prior, recipe, step)
    )[0])  # fmt: skip
    keys = jax.random.split(jax.random.key(0), 2)
    first, later, free = draw(0, keys[0]), draw(25, keys[1]), draw(50, keys[1])
    jax.tree.map(np.testing.assert_array_equal, first, later)
    assert np.abs(free.azimuth - later.azimuth).min() > 1e-3
    index, turn = kept_ode.bin_of(prior, TEXT, first, recipe)
    centres = kept_ode.centres(prior, TEXT, recipe)
    np.testing.assert_allclose(first.azimuth, centres.azimuth[index], atol=1e-5)
    np.testing.assert_allclose(first.elevation, centres.elevation[index], atol=1e-5)
    assert turn == 0 and abs(np.rad2deg(first.azimuth[0]) - 45) <= 360 / 8 / 2


@pytest.mark.parametrize("kind", ["cameras", "sides"])
def test_views_that_follow_odes_of_their_own_are_never_fixed(kind):
    prior, recipe = kind_of(kind, fixed_until=0.6)
    assert kept_ode.fixed_views(prior, recipe, 0) is None


@every_kind
def test_every_viewpoint_falls_into_the_bin_around_it(kind):
    prior, recipe = kind_of(kind)
    width = 2 * np.pi / recipe.ode.azimuth_bins
    height = np.deg2rad(85.0) / recipe.ode.elevation_bins
    centres = kept_ode.centres(prior, TEXT, recipe)
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = jax.vmap(lambda key: sample_viewpoints(key, recipe.camera)[0])(keys)
    if not prior.denoises_together:
        drawn = jax.tree.map(lambda leaf: leaf[:, -1], drawn)
    index, turn = jax.vmap(lambda v: kept_ode.bin_of(prior, TEXT, v, recipe))(drawn)
    assert set(np.asarray(index).tolist()) == set(range(len(centres.azimuth)))
    if prior.tells == "words":
        np.testing.assert_array_equal(index, jax.vmap(view_index)(drawn))
    elif prior.tells == "sides":
        overhead = np.asarray(drawn.elevation) > np.pi / 3
        np.testing.assert_array_equal(index == len(centres.azimuth) - 1, overhead)
        off = np.asarray(angle_from_front(drawn.azimuth) - centres.azimuth[index])[~overhead]
        assert np.abs(off).max() <= width / 2 + 1e-5
    if prior.tells != "cameras":
        return
    azimuth, elevation = (np.asarray(a[index]).reshape(300, -1) for a in centres)
    azimuth = azimuth[:, 0] + np.asarray(turn) * 2 * np.pi / recipe.camera.views
    off = np.asarray(drawn.azimuth).reshape(300, -1)[:, 0] - azimuth
    assert np.abs((off + np.pi) % (2 * np.pi) - np.pi).max() <= width / 2 + 1e-5
    off = np.asarray(drawn.elevation).reshape(300, -1) - elevation
    assert np.abs(off).max() <= height / 2 + 1e-5


@every_kind
@pytest.mark.parametrize("mode", ["nodes", "table"])
def test_size_is_that_of_what_is_kept(kind, mode):
    prior, recipe = kind_of(kind, kind=mode)
    values = jax.eval_shape(partial(build, prior, recipe), noise_of(0, SHAPE, recipe)).values
    assert values.dtype == jnp.bfloat16
    assert kept_ode.size(prior, TEXT, recipe) == 2 * values.size
    assert kept_ode.size(prior, TEXT, changed(recipe, kind="exact")) == 0


def test_bins_and_points_by_hand():
    """Azimuths of four views of one noise repeat after a quarter; left and right are told alike."""
    bins = {}
    for kind in KINDS:
        prior, recipe = kind_of(kind)
        bins[kind] = kept_ode.centres(prior, TEXT, recipe).azimuth.shape
    assert bins == {
        "cameras": (24,), "cameras, together": (6, 4), "cameras, together, own": (24, 4),
        "cameras, one by one, own": (24,), "nothing": (1,), "words": (4,), "sides": (5,),
        "sides, own": (5,),
    }  # fmt: skip
    below = changed(recipe, elevation_max_deg=60.0)
    assert kept_ode.centres(prior, TEXT, below).azimuth.shape == (4,)
    schedule = prior.schedule
    late = changed(recipe, t_min=0.3)
    assert kept_ode.times_of(late, schedule) == (999, 899, 799, 699, 599, 499, 399, 299)
    late = changed(late, kind="table", table_points=8)
    assert kept_ode.times_of(late, schedule) == (999, 899, 799, 699, 599, 499, 399, 300)
    to_the_end = changed(recipe, t_min=0.0)
    assert kept_ode.times_of(to_the_end, schedule) == ode.linear_grid()


def test_bins_are_rounded_up_to_a_multiple_of_the_views():
    prior, recipe = kind_of("cameras, together", azimuth_bins=5, elevation_bins=1)
    azimuth = kept_ode.centres(prior, TEXT, recipe).azimuth
    assert azimuth.shape == (2, 4)
    np.testing.assert_allclose(
        jnp.sort(azimuth.ravel()), (np.arange(8) + 0.5) * np.pi / 4, rtol=1e-5
    )


@pytest.mark.parametrize("mode", ["nodes", "table"])
def test_fine_grids_give_the_closed_form(mode):
    """One Gaussian: eps on its exact trajectory; t' that lie between all points."""
    prior, recipe = kind_of(
        "nothing", kind=mode, views=1, ode_points=251, table_points=100, guidance_scale=1.0
    )
    schedule, noise = prior.schedule, noise_of(5, SHAPE, recipe)
    kept = jax.jit(partial(build, prior, recipe, dtype=jnp.float32))(noise)
    front, _ = viewpoint_at(0.0, 0.0, recipe.camera)
    for t in (993, 801, 555, 333, 171):
        x_t = ode_solution(1.0, VARIANCE, schedule, noise, 999, t)
        gaussian = GaussianMixture(jnp.zeros(1), jnp.ones((1, *SHAPE)), jnp.array(VARIANCE))
        got = found(prior, recipe, noise, kept, front, jnp.int32(t))
        np.testing.assert_allclose(got.eps_t, gaussian.eps(schedule, x_t, t), atol=0.01)
        np.testing.assert_allclose(got.x_t, x_t, atol=0.05)


def test_the_grid_of_the_ode_is_a_table_that_costs_nothing_more():
    """Its points are the trajectory's own."""
    prior, recipe = kind_of("nothing", kind="table", table_points=None, views=1)
    noise = noise_of(3, SHAPE, recipe)
    kept = build(prior, recipe, noise, jnp.float32)
    front, _ = viewpoint_at(0.0, 0.0, recipe.camera)
    for t in kept_ode.node_times(recipe, prior.schedule):
        expected = exact(prior, recipe, noise, front, t)
        got = found(prior, recipe, noise, kept, front, t)
        np.testing.assert_allclose(got.eps_t, expected.eps_t, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(got.xhat_t, expected.xhat_t, rtol=1e-3, atol=1e-3)


def test_error_of_a_table_falls_with_its_points():
    errors = []
    for points in (8, 16, 32):
        prior, recipe = kind_of("words", kind="table", table_points=points)
        kept = jax.jit(partial(build, prior, recipe))(noise_of(0, SHAPE, recipe))
        errors.append(float(kept.metrics["ode_error"]))
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 0
    assert errors[2] < 0.02


@pytest.mark.parametrize("kind", ["cameras, together", "sides"])
@pytest.mark.parametrize(
    ("mode", "anchor", "at_w", "at_w_prime"),
    [
        ("exact", "trajectory", 6, 0), ("nodes", "trajectory", 2, 0), ("table", "trajectory", 1, 0),
        ("exact", "interpolated", 6, 1), ("table", "interpolated", 1, 1),
    ],
)  # fmt: skip
def test_what_a_step_asks_of_the_prior(kind, mode, anchor, at_w, at_w_prime):
    """At t' = t = 610 there are four steps of the ODE, eps at t', then the final predictions."""
    prior, recipe = kind_of(kind, kind=mode, anchor=anchor, t_prime_offset=0.0)
    prior = dataclasses.replace(prior, counts=Counter())
    noise = noise_of(0, SHAPE, recipe)
    kept = None if mode == "exact" else jax.jit(partial(build, prior, recipe))(noise)
    jax.effects_barrier()
    prior.counts.clear()
    viewpoints, _ = sample_viewpoints(jax.random.key(1), recipe.camera)
    seen = method_step.Seen(jnp.int32(610), 0, None, kept, viewpoints)

    @jax.jit
    def gradient(x):
        shared, key = Shared(None, TEXT), jax.random.key(2)
        return method_step.gradient(prior, recipe, shared, key, x, noise, seen)

    x = jnp.zeros((recipe.camera.views, *SHAPE))
    grad, logs = gradient(x)
    jax.effects_barrier()
    # Where a callback sees no view, views denoised one by one count once for all of them.
    assert dict(prior.counts) == {1.5: at_w} | ({1.0: at_w_prime} if at_w_prime else {})
    assert grad.shape == x.shape and np.isfinite(grad).all()
    assert ("ode_error" in logs) == (mode == "table")


def test_a_state_is_filled_where_the_recipe_keeps_the_ode(task):
    assert make_fill(task.prior, task.recipe) is not None
    assert make_fill(task.prior, with_method(task.recipe, "sds")) is None


def test_networks_whose_views_attend_to_one_another_do_not_mind_their_order(tiny_prior_folder):
    """The views of one noise a quarter further round are those of the bin, permuted."""
    prior = load_prior(tiny_prior_folder)
    recipe = changed(
        Recipe(), kind="nodes", ode_points=4, azimuth_bins=4, elevation_bins=1, guidance_scale=2.0
    )
    text, noise = prior.condition("a red house"), noise_of(1, prior.latent_shape, recipe)
    (azimuth,), (elevation,) = kept_ode.centres(prior, text, recipe)
    viewpoints, _ = viewpoint_at(azimuth + np.pi / 2, elevation, recipe.camera)

    @jax.jit
    def both(params):
        denoiser = prior.denoiser_at(params, text, viewpoints)(2.0)
        kept = kept_ode.build(prior, params, text, noise, recipe, jnp.float32)
        at = kept_ode.ode_at(kept, prior, params, text, viewpoints, recipe, noise)
        followed = ode.integrate(denoiser, prior.schedule, noise, ode.linear_grid(4), 500)
        return at(jnp.int32(500)).eps_t, followed.eps_t

    kept, followed = both(prior.params)
    np.testing.assert_allclose(kept, followed, atol=1e-5)
    assert np.abs(kept[0] - kept[1]).max() > 1e-3
