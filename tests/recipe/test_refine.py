"""Refinement: rounds of clean targets, and a fit to them."""

import dataclasses
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples.own_prior import Flat

from dsd_jax.engine import generate, loop
from dsd_jax.engine.device_mesh import place, seed_mesh
from dsd_jax.engine.seed_views import stage_of
from dsd_jax.engine.task import make_task
from dsd_jax.priors.base import completed
from dsd_jax.recipe import presets, refine
from dsd_jax.recipe import targets as round_targets
from dsd_jax.recipe.fitting_parts import RefineSettings
from dsd_jax.recipe.recipe import changed
from dsd_jax.recipe.state import init_state, without_ode
from dsd_jax.recipe.viewpoints import Reference, Shared, viewpoint_at
from dsd_jax.rendering.cameras import pixel_rays, rays
from dsd_jax.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.from_config({})
STEPS, FIT, ROUNDS = 3, 6, 2


@pytest.fixture(scope="module")
def recipe():
    return changed(
        presets.quick, steps=STEPS, resolution=8, late_resolution=8, samples=8, levels=2,
        start_levels=2, log2_entries=8, width=8, occupancy_resolution=8, occupancy_every=4,
        density_floor=0.0, guidance_scale=1.0, rounds=ROUNDS, fit_steps=FIT, rays=64,
        shape="density", groups=2, fit_samples=8, target_samples=8, ddim_steps=4, refresh_every=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def task(recipe):
    return make_task(Flat(), "a red thing", recipe)


@pytest.fixture(scope="module")
def blocks(task):
    return generate.make_blocks(task, seed_mesh(2, jax.local_devices()[:1]))


def run(task, blocks, states, until=None):
    """The states after the last step, or after the first block that reaches `until`."""
    mesh = seed_mesh(len(states.seed), jax.local_devices()[:1])
    reached = []

    def stop():
        return int(bool(until) and bool(reached) and reached[-1] >= until)

    states, shared = place(mesh, states, task.shared)
    states = loop.run(blocks, states, shared, lambda p: reached.append(p.done), stop)
    return jax.tree.map(np.asarray, without_ode(states))


@pytest.fixture(scope="module")
def unbroken(task, blocks):
    return run(task, blocks, generate.initial_states(task, [0, 1]))


def test_t0_falls_evenly_and_fresh_noise_grows():
    numbers = RefineSettings(rounds=5, t_first=0.8, t_last=0.2, fresh=0.9, fresh_at=0.5)
    t0 = [int(round_targets.t_start(i, numbers, SCHEDULE)) for i in range(5)]
    assert t0 == [799, 649, 500, 350, 200]
    shares = [float(round_targets.fresh_share(t, numbers, SCHEDULE)) for t in t0]
    np.testing.assert_allclose(shares, [0.0, 0.45, 0.9, 0.9, 0.9], atol=0.003)
    fresh = dataclasses.replace(numbers, noise="fresh")
    assert float(round_targets.fresh_share(700, fresh, SCHEDULE)) == 1.0


def test_without_rounds_a_state_has_no_targets(recipe):
    none = changed(recipe, rounds=0)
    assert round_targets.no_targets(completed(Flat()), none, 0) is None
    assert none.total_steps == STEPS and recipe.total_steps == STEPS + ROUNDS * FIT


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rounds", -1, "--refine.rounds must be at least 0"),
        ("ddim_steps", 1, "--refine.ddim-steps must be at least 2"),
        ("fit_steps", 0, "--refine.fit-steps must be at least 1"),
        ("t_last", 0.9, "--refine.t-last must lie above 0 and not above --refine.t-first"),
        ("noise", "white", "--refine.noise 'white' is not one of ode, fresh"),
    ],
)
def test_what_cannot_work_is_refused(recipe, name, value, said):
    with pytest.raises(ValueError, match=said):
        changed(recipe, **{name: value})


def test_single_rays_are_those_of_pictures():
    numbers = presets.quick.camera
    _, cameras = viewpoint_at(jnp.array([0.3, 2.0]), jnp.array([0.1, -0.2]), numbers)
    rows, columns = jnp.array([0, 3, 7]), jnp.array([5, 0, 7])
    for view in range(2):
        whole = rays(jax.tree.map(lambda leaf, view=view: leaf[view], cameras), 8, 8)
        single = pixel_rays(cameras, jnp.full(3, view), rows, columns, 8)
        for ours, theirs in zip(single, whole, strict=True):
            np.testing.assert_allclose(ours, theirs[rows, columns], atol=1e-6)


@pytest.mark.parametrize("noise", ["ode", "fresh"])
def test_targets_are_clean_pictures_of_the_prompt(task, recipe, noise):
    """The prior knows red pictures alone, flat but for a small variance."""
    recipe, prior = changed(recipe, noise=noise), task.prior
    targets = round_targets.no_targets(prior, recipe, 0)
    state = init_state(3, prior.latent_shape, recipe, targets=targets)
    state = dataclasses.replace(state, step=jnp.asarray(STEPS))
    after = jax.jit(refine.make_prepare(prior, recipe))(state, task.shared, True)
    assert after.targets.rgba.shape == (8, 4, 4, 4) and after.targets.rgba.dtype == np.uint8
    assert not after.targets.told.any()
    red = np.asarray(after.targets.rgba[..., :3], float).mean((0, 1, 2))
    assert red[0] > 230 and red[1] < 25 and red[2] < 25
    turn = np.diff(np.asarray(after.targets.azimuth).reshape(2, 4), axis=1)
    np.testing.assert_allclose(turn, np.pi / 2, atol=1e-5)
    low, high = np.radians([recipe.camera.elevation_min_deg, recipe.camera.elevation_max_deg])
    assert ((after.targets.elevation >= low) & (after.targets.elevation <= high)).all()


def test_the_first_targets_of_a_surface_are_of_what_distillation_left(task, recipe, unbroken):
    """They are those of the density, whatever the surface, which has not begun yet."""
    # Variance and little noise, so that the rendering counts.
    shared, recipe = task.shared._replace(prior=jnp.ones(())), changed(recipe, t_first=0.3)
    prior, solid = task.prior, changed(recipe, shape="surface", distance_levels=2, settle_steps=8)
    left = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), unbroken)
    left = dataclasses.replace(left, step=jnp.asarray(STEPS))
    surface = init_state(0, prior.latent_shape, solid).params["field"]
    surface["distance"]["Dense_1"]["bias"] += 5.0  # nothing is inside
    params = {**left.params, "field": {**surface, "base": left.params["field"]}}
    prepare = jax.jit(refine.make_prepare(prior, solid))
    found = prepare(dataclasses.replace(left, params=params), shared, True).targets
    wanted = jax.jit(refine.make_prepare(prior, recipe))(left, shared, True).targets
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    others = prepare(dataclasses.replace(left, params=params), shared, False).targets
    apart = np.abs(np.asarray(others.rgba, int) - np.asarray(wanted.rgba, int))
    assert apart.max() > 5


def test_the_optimiser_starts_anew_and_a_plain_field_stays_as_it_is(recipe, unbroken):
    used = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), unbroken)
    after = jax.jit(refine.make_begin(recipe))(used)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(after.opt_state)) == 0
    jax.tree.map(np.testing.assert_array_equal, after.params, used.params)


def test_the_object_comes_nearer_to_its_targets(task, recipe):
    prior, targets = task.prior, round_targets.no_targets(task.prior, recipe, 0)
    state = init_state(0, prior.latent_shape, recipe, targets=targets)
    blue = jnp.zeros_like(targets.rgba).at[..., 2].set(255)
    state = dataclasses.replace(
        state, targets=dataclasses.replace(targets, rgba=blue),
        opt_state=refine.optimiser(recipe).init(state.params),
    )  # fmt: skip
    step, losses = jax.jit(refine.make_step(recipe)), []
    for _ in range(60):
        state, metrics = step(state, task.shared)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] and np.isfinite(losses).all()
    _, colours = recipe.scene.field_fn(state.params)(jnp.zeros((1, 3)))
    assert float(colours[0, 2] - colours[0, 0]) > 0.1


def test_a_picture_is_one_of_the_targets(recipe):
    picture = Reference(jnp.asarray(0.2), jnp.full((8, 8, 3), 0.5), jnp.ones((8, 8)))
    targets = round_targets.no_targets(completed(Flat()), recipe, 0)
    with_it = round_targets._with_picture(targets, picture)
    assert (
        with_it.rgba.shape[0] == 9 and (with_it.rgba[-1] == jnp.asarray([128, 128, 128, 255])).all()
    )
    assert with_it.told.tolist() == 8 * [False] + [True]
    assert with_it.azimuth[-1] == 0 and float(with_it.elevation[-1]) == pytest.approx(0.2)
    like = round_targets.no_targets(completed(Flat()), recipe, 1)
    assert jax.tree.map(jnp.shape, like) == jax.tree.map(jnp.shape, with_it)
    two = round_targets._with_picture(with_it, picture, 3.0)
    assert two.rgba.shape[0] == 10 and float(two.azimuth[-1]) == 3


def test_where_targets_tell_opacity_it_counts_like_a_colour(recipe):
    """White matter before white: only its opacity tells whether it belongs to the object."""
    white = changed(recipe, background="white", fit_opaque=0.0)
    state = init_state(0, completed(Flat()).latent_shape, white)
    step = jax.jit(refine.make_step(white))
    lost = {}
    for solid, told in ((0, True), (255, True), (255, False)):
        targets = round_targets.no_targets(completed(Flat()), white, False)
        rgba = jnp.full_like(targets.rgba, 255).at[..., 3].set(solid)
        targets = dataclasses.replace(targets, rgba=rgba, told=jnp.full_like(targets.told, told))
        state = dataclasses.replace(state, targets=targets, step=jnp.asarray(STEPS))
        _, metrics = step(state, Shared(None, None))
        lost[solid, told], seen = float(metrics["loss"]), float(metrics["opacity"])
    assert lost[255, False] < min(lost[0, True], lost[255, True]) and 0.01 < seen < 0.99
    told = lost[255, True] - lost[0, True]
    assert told == pytest.approx(1 - 2 * seen, abs=0.03)


@pytest.mark.parametrize("until", [STEPS, STEPS + 2])
def test_broken_off_and_resumed_it_is_the_unbroken_run(task, blocks, unbroken, until):
    """At the beginning of a round and in the middle of one, bit for bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "BLOCK_SECONDS", 0.0)
        half = run(task, blocks, generate.initial_states(task, [0, 1]), until)
    assert until <= int(half.step[0]) < int(unbroken.step[0])
    again = run(task, blocks, half)
    jax.tree.map(np.testing.assert_array_equal, again, unbroken)


def test_a_surface_is_resumed_as_well_and_becomes_one(task, recipe):
    """From the step on which the refinement begins; its width shrinks, its colours become red."""
    solid = changed(recipe, shape="surface", distance_levels=2, settle_steps=8)
    task = make_task(Flat(), "a red thing", solid)
    blocks = generate.make_blocks(task, seed_mesh(1, jax.local_devices()[:1]))
    states = generate.initial_states(task, [0])
    plain = init_state(0, task.prior.latent_shape, recipe)
    same = jax.tree.map(lambda a, b: bool((a[0] == b).all()), states.params["field"]["base"],
                        plain.params["field"])  # fmt: skip
    assert jax.tree.all(same), "the field it wraps starts as without it"
    whole = run(task, blocks, states)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "BLOCK_SECONDS", 0.0)
        half = run(task, blocks, generate.initial_states(task, [0]), STEPS + 2)
    jax.tree.map(np.testing.assert_array_equal, run(task, blocks, half), whole)
    stages = [stage_of(states, solid) for states in (half, whole)]
    assert solid.surface.width_first > stages[0].width > stages[1].width
    assert stages[1].width == pytest.approx(solid.surface.width_last)
    params = jax.tree.map(lambda leaf: leaf[0], whole.params)
    density, _ = solid.scene.field_fn(params, stages[1])(jnp.zeros((1, 3)))
    assert density[0] > 50, "it is solid inside"


def test_a_seed_alone_is_the_seed_among_others(task, unbroken):
    alone = generate.make_blocks(task, seed_mesh(1, jax.local_devices()[:1]))
    found = run(task, alone, generate.initial_states(task, [1]))
    close = partial(np.testing.assert_allclose, atol=2e-3)
    jax.tree.map(lambda a, b: close(a[0], b[1]), found.params, unbroken.params)


def test_rays_go_where_they_are_worth_most():
    worth = jnp.zeros((2, 4, 4), bool).at[1, 2, 3].set(True).at[0, 1, 0].set(True)
    rgba, told = jnp.zeros((2, 4, 4, 4), jnp.uint8), jnp.zeros(2, bool)
    place = round_targets.Targets(rgba, told, worth, *jnp.zeros((2, 2)))
    numbers = RefineSettings(rays=4000, focus=0.75)
    drawn = np.asarray(refine._pixels(jax.random.key(0), place, 2, numbers))
    shares = np.bincount(drawn, minlength=32) / len(drawn)
    np.testing.assert_allclose(shares[[4, 27]], 0.375 + 0.25 / 32, atol=0.03)
    np.testing.assert_allclose(np.delete(shares, [4, 27]), 0.25 / 32, atol=0.007)
    nothing = dataclasses.replace(place, worth=jnp.zeros_like(worth))
    drawn = np.asarray(refine._pixels(jax.random.key(0), nothing, 1, numbers))
    assert drawn.min() >= 0 and drawn.max() == 15
    assert np.bincount(drawn, minlength=16).max() < 2 * len(drawn) / 16


def test_worth_is_matter_and_what_changes_and_what_is_around():
    grey, opacity = jnp.full((16, 16, 3), 0.8), jnp.zeros((8, 8)).at[1, 1].set(1.0)
    wanted = grey.at[12, 12].set(0.1)
    found = np.asarray(round_targets._worth(wanted, jnp.full((8, 8, 3), 0.8), opacity))
    assert found[0:7, 0:7].all() and found[9:16, 9:16].all()
    assert not found[0:8, 8:].any() and not found[9:, :8].any()


def test_the_next_phase_is_compiled_while_one_goes_on(task):
    compiled = []

    def listen(name, seconds, **rest):
        if "backend_compile" in name:
            compiled.append(threading.current_thread() is threading.main_thread())

    blocks = generate.make_blocks(task, seed_mesh(1, jax.local_devices()[:1]))
    states = generate.initial_states(task, [0])
    states, shared = place(seed_mesh(1, jax.local_devices()[:1]), states, task.shared)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        begun = []
        loop.run(blocks, states, shared, lambda p: begun.append((p.done, len(compiled))))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    later = compiled[dict(begun)[1] :]
    assert later.count(False) >= 3, "step, refresh and targets"
    assert later.count(True) <= 2, "the loop compiles only what adds up a phase's metrics"
