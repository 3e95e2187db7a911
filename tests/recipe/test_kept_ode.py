"""What is kept of a seed's ODE, against the ODE itself."""

import dataclasses
from collections import Counter
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax import ode
from dsd_jax.distillation import METHODS
from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.priors.gaussian import GaussianMixture, ode_solution
from dsd_jax.recipe import kept_ode, method_step
from dsd_jax.recipe.checks import check
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.state import init_state, seed_noise
from dsd_jax.recipe.step import Recipe, Shared, make_cache
from dsd_jax.recipe.viewpoints import (
    Text,
    Viewpoint,
    camera_at,
    condition,
    sample_viewpoints,
    view_index,
)
from dsd_jax.schedule import NoiseSchedule

SHAPE = (2, 2, 1)
VARIANCE = 0.3


@dataclasses.dataclass(frozen=True)
class Seen:
    """Stands in for `Prior`: one Gaussian whose mean is what it was told about the view.

    Attributes:
        counts: guidance scale -> evaluations, one for all views of a step.
    """

    has_camera: bool = False
    latent_shape: tuple = SHAPE
    counts: Counter | None = None

    @property
    def schedule(self):
        return NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)

    def denoiser_at(self, params, text, uncond, camera=None, num_views=1):
        """Views that are denoised together are drawn to their common mean."""
        told = text[0, 0] if camera is None else camera @ jnp.linspace(-1.0, 1.0, 16)
        return self._about(jnp.broadcast_to(told[..., None, None, None], (*told.shape, *SHAPE)))

    def perp_neg_at(self, params, view_prompts, uncond):
        mean = view_prompts.text[0, 0] + view_prompts.weights @ view_prompts.negatives[:, 0, 0]
        return self._about(jnp.full(SHAPE, mean))

    def _about(self, mean):
        def denoiser_at(scale):
            def denoiser(x, t):
                if self.counts is not None:
                    jax.debug.callback(partial(self.counts.update, [float(scale)]))
                mixture = GaussianMixture(jnp.zeros(1), scale * mean[None], jnp.array(VARIANCE))
                eps = mixture.eps(self.schedule, x, t)
                return eps if mean.ndim == 3 else eps + 0.1 * jnp.mean(x, 0)

            return denoiser

        return denoiser_at


TEXT = Text(jnp.ones((1, 1)), jnp.arange(4.0).reshape(4, 1, 1), jnp.zeros((1, 1)))
KINDS = {
    "camera": (True, {"views": 1}),
    "camera, together": (True, {"views": 4}),
    "camera, together, own": (True, {"views": 4, "view_noise": "own"}),
    "one prompt": (False, {"views": 4, "view_prompts": "none"}),
    "words": (False, {"views": 1, "view_prompts": "words"}),
    "blends": (False, {"views": 4, "view_prompts": "perp-neg"}),
    "blends, own": (False, {"views": 2, "view_noise": "own", "view_prompts": "perp-neg"}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def kind_of(kind, **changes):
    """A prior and settings."""
    has_camera, settings = KINDS[kind]
    settings = {"guidance_scale": 1.5, "t_min": 0.15, "ode_azimuth_bins": 8, "ode_table_points": 6,
                "ode": "nodes", "elevation_max_deg": 75.0, **settings, **changes}  # fmt: skip
    settings = Settings(**settings)
    check(settings)
    return Seen(has_camera), settings


def exact_eps(prior, settings, noise, viewpoint, t):
    """eps_t' by following the ODE of one noise to t'."""
    camera = camera_at(viewpoint, settings)
    denoiser_at = condition(prior, None, TEXT, viewpoint, camera, settings)
    grid = ode.linear_grid(settings.ode_points)
    return ode.integrate(denoiser_at(settings.guidance_scale), prior.schedule, noise, grid, t).eps_t


def kept_eps(prior, settings, cache, viewpoint, t):
    """The same from a cache."""
    return kept_ode.eps_at(cache, prior, None, TEXT, viewpoint, settings)(t)


def one_ode(prior, settings, noise, cache):
    """(noise, cache) of the last view where views are denoised one by one, else as they are."""
    if prior.has_camera or settings.views == 1:
        return noise, cache
    own = settings.view_noise == "own"
    return noise[-1], jax.tree.map(lambda leaf: leaf[-1], cache) if own else cache


@every_kind
@pytest.mark.parametrize("mode", ["nodes", "table"])
def test_at_the_centre_of_a_bin_it_is_the_ode(kind, mode):
    """Nodes at every t', a table at its own; also further round, where the views are permuted."""
    prior, settings = kind_of(kind, ode=mode)
    noise = seed_noise(3, SHAPE, settings)
    centres = kept_ode.centres(prior, settings)
    times = kept_ode.times_of(settings, prior.schedule)
    times = jnp.array([*times[:-1], *((640, 777) if mode == "nodes" else ())])
    turn = 3 * np.pi / 2 if prior.has_camera and settings.views == 4 else -2 * np.pi
    turn = 0.0 if settings.view_noise == "own" else turn
    some = np.array([0, len(centres.azimuth) // 2, len(centres.azimuth) - 1])
    viewpoints = Viewpoint(centres.azimuth[some] + turn, centres.elevation[some])

    @partial(jax.jit, static_argnums=1)
    def eps(noise, dtype):
        cache = kept_ode.build(prior, None, TEXT, noise, settings, dtype)
        one, own = one_ode(prior, settings, noise, cache)

        def at(viewpoint, t):
            return (
                exact_eps(prior, settings, one, viewpoint, t),
                kept_eps(prior, settings, own, viewpoint, t),
            )

        return jax.vmap(jax.vmap(at, in_axes=(None, 0)), in_axes=(0, None))(viewpoints, times)

    np.testing.assert_allclose(*eps(noise, jnp.float32), atol=1e-5)
    np.testing.assert_allclose(*eps(noise, kept_ode.STORED), atol=0.02)


@every_kind
def test_every_viewpoint_falls_into_the_bin_around_it(kind):
    prior, settings = kind_of(kind)
    width = 2 * np.pi / settings.ode_azimuth_bins
    height = np.deg2rad(85.0) / settings.ode_elevation_bins
    centres = kept_ode.centres(prior, settings)
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = jax.vmap(lambda key: sample_viewpoints(key, settings)[0])(keys)
    if not prior.has_camera or settings.views == 1:
        drawn = jax.tree.map(lambda angle: angle[:, -1], drawn)
    index, turn = jax.vmap(lambda v: kept_ode.bin_of(prior, v, settings))(drawn)
    assert set(np.asarray(index).tolist()) == set(range(len(centres.azimuth)))
    if settings.view_prompts == "words" and not prior.has_camera:
        np.testing.assert_array_equal(index, jax.vmap(view_index)(drawn))
    elif not prior.has_camera and settings.view_prompts == "perp-neg":
        overhead = np.asarray(drawn.elevation) > np.pi / 3
        np.testing.assert_array_equal(index == len(centres.azimuth) - 1, overhead)
        folded = np.abs((np.asarray(drawn.azimuth) + np.pi) % (2 * np.pi) - np.pi)
        off = (folded - np.asarray(centres.azimuth[index]))[~overhead]
        assert np.abs(off).max() <= width / 2 + 1e-5
    if not prior.has_camera:
        return
    azimuth, elevation = (np.asarray(a[index]).reshape(300, -1) for a in centres)
    azimuth = azimuth[:, 0] + np.asarray(turn) * 2 * np.pi / settings.views
    off = np.asarray(drawn.azimuth).reshape(300, -1)[:, 0] - azimuth
    assert np.abs((off + np.pi) % (2 * np.pi) - np.pi).max() <= width / 2 + 1e-5
    off = np.asarray(drawn.elevation).reshape(300, -1) - elevation
    assert np.abs(off).max() <= height / 2 + 1e-5


@every_kind
@pytest.mark.parametrize("mode", ["nodes", "table"])
def test_size_is_that_of_what_is_kept(kind, mode):
    prior, settings = kind_of(kind, ode=mode)
    noise = seed_noise(0, SHAPE, settings)
    build = partial(kept_ode.build, prior, None, TEXT, noise, settings)
    values = jax.eval_shape(build).values
    assert values.dtype == jnp.bfloat16
    assert kept_ode.size(prior, settings) == 2 * values.size
    assert kept_ode.size(prior, dataclasses.replace(settings, ode="exact")) == 0


def test_bins_and_points_by_hand():
    """Azimuths of four views of one noise repeat after a quarter; left and right are told alike."""
    bins = {}
    for kind in KINDS:
        prior, settings = kind_of(kind)
        bins[kind] = kept_ode.centres(prior, settings).azimuth.shape
    assert bins == {
        "camera": (24,), "camera, together": (6, 4), "camera, together, own": (24, 4),
        "one prompt": (1,), "words": (4,), "blends": (5,), "blends, own": (5,),
    }  # fmt: skip
    below = dataclasses.replace(settings, elevation_max_deg=60.0)
    assert kept_ode.centres(prior, below).azimuth.shape == (4,)
    schedule = prior.schedule
    late = dataclasses.replace(settings, t_min=0.3)
    assert kept_ode.times_of(late, schedule) == (999, 899, 799, 699, 599, 499, 399, 299)
    late = dataclasses.replace(late, ode="table", ode_table_points=8)
    assert kept_ode.times_of(late, schedule) == (999, 899, 799, 699, 599, 499, 399, 300)
    to_the_end = dataclasses.replace(settings, t_min=0.0)
    assert kept_ode.times_of(to_the_end, schedule) == ode.linear_grid()


@pytest.mark.parametrize("mode", ["nodes", "table"])
def test_fine_grids_give_the_closed_form(mode):
    """One Gaussian: eps on its exact trajectory; t' that lie between all points."""
    prior, settings = kind_of(
        "one prompt", ode=mode, views=1, ode_points=251, ode_table_points=100, guidance_scale=1.0
    )
    schedule, noise = prior.schedule, seed_noise(5, SHAPE, settings)
    build = partial(kept_ode.build, prior, None, TEXT, settings=settings, dtype=jnp.float32)
    cache = jax.jit(build)(noise)
    front = Viewpoint(jnp.zeros(()), jnp.zeros(()))
    for t in (993, 801, 555, 333, 171):
        x_t = ode_solution(1.0, VARIANCE, schedule, noise, 999, t)
        exact = GaussianMixture(jnp.zeros(1), jnp.ones((1, *SHAPE)), jnp.array(VARIANCE))
        got = kept_eps(prior, settings, cache, front, jnp.int32(t))
        np.testing.assert_allclose(got, exact.eps(schedule, x_t, t), atol=0.01)


def test_error_of_a_table_falls_with_its_points():
    errors = []
    for points in (8, 16, 32):
        prior, settings = kind_of("words", ode="table", ode_table_points=points)
        build = partial(kept_ode.build, prior, None, TEXT, settings=settings)
        errors.append(float(jax.jit(build)(seed_noise(0, SHAPE, settings)).metrics["ode_error"]))
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 0
    assert errors[2] < 0.02


def test_seeds_are_filled_together_as_alone():
    prior, settings = kind_of("blends, own", ode="table")
    noises = jnp.stack([seed_noise(seed, SHAPE, settings) for seed in range(3)])
    build = partial(kept_ode.build, prior, None, TEXT, settings=settings)
    together, alone = jax.jit(jax.vmap(build))(noises), jax.jit(build)(noises[1])
    assert together.values.shape == (3, 2, 5, 6, *SHAPE)
    middle = jax.tree.map(lambda leaf: leaf[1].astype(jnp.float32), together)
    alone = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), alone)
    chex.assert_trees_all_close(middle, alone, atol=0.01)


@pytest.mark.parametrize("kind", ["camera", "camera, together", "blends"])
@pytest.mark.parametrize(
    ("mode", "anchor", "at_w", "at_w_prime"),
    [
        ("exact", "trajectory", 6, 0), ("nodes", "trajectory", 2, 0), ("table", "trajectory", 1, 0),
        ("exact", "interpolated", 6, 1), ("table", "interpolated", 1, 1),
    ],
)  # fmt: skip
def test_what_a_step_asks_of_the_prior(task, kind, mode, anchor, at_w, at_w_prime):
    """At t' = t = 610 there are four steps of the ODE, eps at t', then the final predictions."""
    prior, settings = kind_of(kind, ode=mode, anchor=anchor, t_prime_offset=0.0)
    prior = dataclasses.replace(prior, counts=Counter())
    recipe = Recipe(task.scene, prior, METHODS["dsd"], settings)
    state, shared = init_state(0, SHAPE, task.scene, settings), Shared(None, TEXT)
    if mode != "exact":
        state = jax.jit(make_cache(recipe))(state, shared)
    jax.effects_barrier()
    prior.counts.clear()
    viewpoint, camera = sample_viewpoints(jax.random.key(1), settings)
    x = jnp.zeros((settings.views, *SHAPE))
    gradient = jax.jit(partial(method_step.gradient, recipe, shared, jax.random.key(2)))
    grad, aux = gradient(x, state.seed_noise, jnp.int32(610), state, viewpoint, camera)
    jax.effects_barrier()
    # Where a callback sees no view, views denoised one by one count once for all of them.
    assert dict(prior.counts) == {1.5: at_w} | ({1.0: at_w_prime} if at_w_prime else {})
    assert grad.shape == x.shape and np.isfinite(grad).all()
    assert ("ode_error" in aux) == (mode == "table")


def test_only_methods_that_follow_the_ode_are_given_a_cache(task):
    prior, settings = kind_of("words")
    recipe = Recipe(task.scene, prior, METHODS["sds"], settings)
    assert make_cache(recipe) is None
    recipe = recipe._replace(method=METHODS["dsd"])
    assert make_cache(recipe) is not None
    exact = dataclasses.replace(settings, ode="exact")
    assert make_cache(recipe._replace(settings=exact)) is None


def test_the_grid_of_the_ode_is_a_table_that_costs_nothing_more():
    """Its points are the trajectory's own predictions."""
    prior, settings = kind_of("one prompt", ode="table", ode_table_points=None, views=1)
    noise = seed_noise(3, SHAPE, settings)
    cache = kept_ode.build(prior, None, TEXT, noise, settings, jnp.float32)
    viewpoint = Viewpoint(jnp.zeros(()), jnp.zeros(()))
    for t in kept_ode.node_times(settings, prior.schedule):
        expected = exact_eps(prior, settings, noise, viewpoint, t)
        found = kept_eps(prior, settings, cache, viewpoint, t)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_bins_are_rounded_up_to_a_multiple_of_the_views():
    prior, settings = kind_of("camera, together", ode_azimuth_bins=5, ode_elevation_bins=1)
    azimuth = kept_ode.centres(prior, settings).azimuth
    assert azimuth.shape == (2, 4)
    np.testing.assert_allclose(
        jnp.sort(azimuth.ravel()), (np.arange(8) + 0.5) * np.pi / 4, rtol=1e-5
    )


def test_a_noise_that_moves_with_the_surface_is_followed_at_every_step():
    settings = Settings(ode="table", view_noise="attached")
    assert not kept_ode.is_used(METHODS["dsd"], settings)
    assert kept_ode.is_used(METHODS["dsd"], dataclasses.replace(settings, view_noise="shared"))
