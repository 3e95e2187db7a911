"""Evaluations of the network, counted and worked by hand."""

import jax.numpy as jnp
import pytest

from dsd_jax.engine.task import make_task
from dsd_jax.priors import Viewpoint, load_prior
from dsd_jax.recipe import annealing, targets
from dsd_jax.recipe.recipe import Recipe, changed, with_method
from dsd_jax.studies import evaluations, images2d

STEPS = 3
RECIPE = changed(images2d.PICTURES, steps=STEPS, t_prime_offset=0.0)


@pytest.fixture(scope="module")
def prior(tiny_prior_folder):
    return load_prior(str(tiny_prior_folder), jnp.float32)


def count(prior, recipe, run):
    return evaluations.count(make_task(prior, "a red house", recipe), run)


def optimise(image):
    return images2d.optimise(image, [0]).images


# A guided prediction takes two pictures, a plain or an unconditional one takes one.
@pytest.mark.parametrize(
    ("method", "each"),
    [
        ("sds", 2),
        ("csd", 1 + 1),
        ("nfsd", 2 + 1),
        ("ism", 5 + 1 + 2),  # inversion, its end, and the guided prediction
        ("vsd", 2 + 1 + 1),  # the LoRA's prediction, and its training
        ("asd", 2 + 1 + 1 + 1),  # and the prior's, which the training compares with
        ("sim", 2 + 1 + 1),
        ("sdi", 10 * 2 + 2),
        ("fsd", 2),
        ("cfd", 2),
    ],
)
def test_steps_of_a_method(prior, method, each):
    assert count(prior, with_method(RECIPE, method), optimise) == STEPS * each


@pytest.mark.parametrize(("anchor", "prime"), [("trajectory", 0), ("interpolated", 1)])
def test_the_simulated_ode_counts(prior, anchor, prime):
    """t' is t: the grid points above t, eps at t', the prediction at t, and that at w' = 1."""
    recipe = changed(RECIPE, anchor=anchor)
    times = [int(annealing.run_timestep(i, recipe, prior.schedule)) for i in range(STEPS)]
    grid = [999, 899, 799, 699, 599, 499, 399, 299, 199, 99, 0]
    above = [sum(point > t for point in grid) for t in times]
    assert above[0] == 1 < above[1] < above[2]
    expected = sum(2 * (n + 1 + 1) + prime for n in above)
    assert count(prior, recipe, optimise) == expected


def test_sampling_and_following(prior):
    assert count(prior, RECIPE, lambda image: images2d.ddim(image, [0, 1], 7)) == 2 * 7 * 2
    assert count(prior, RECIPE, lambda image: images2d.follow(image, [0]).images) == 2 * STEPS


def test_plain_descent(prior):
    """The start, and at t' = 999, 666 and 333: eps there by the ODE, and two predictions."""
    recipe = images2d.recipe_by(RECIPE, images2d.PLAIN, ode_points=11)
    found = count(prior, recipe, lambda image: images2d.descend(image, [0]).images)
    assert found == 2 * (1 + (1 + 2) + (5 + 2) + (8 + 2))


def test_without_guidance_one_picture_is_enough(prior):
    recipe = with_method(changed(RECIPE, guidance_scale=1.0), "sds")
    assert count(prior, recipe, optimise) == STEPS


def test_perp_neg_asks_for_two_more(prior):
    """Of a prior without camera."""
    calls = []
    fake = evaluations.CountingPrior(prior.schedule, 4, calls.append)
    view = Viewpoint(jnp.zeros(()), jnp.zeros(()), jnp.eye(4))
    denoiser_at, x = fake.denoiser_at(None, jnp.zeros(()), view), jnp.zeros((1, 1, 1))
    denoiser_at(5.0)(x, 500).block_until_ready()
    fake.prediction_at(None, jnp.zeros(()), view)(x, 500).block_until_ready()
    assert calls == [4, 1]


@pytest.mark.parametrize(
    ("changes", "kept", "each"),
    [
        ({"ode.kind": "table"}, 10, 1),  # the grid down to 99, below t_min
        ({"ode.kind": "table", "table_points": 4}, 9 + 4, 1),
        ({"ode.kind": "nodes"}, 9, 2),
    ],
)
def test_a_kept_ode_is_built_for_every_bin_and_asked_no_more(prior, changes, kept, each):
    """4 views of one bin, denoised together, in 3 steps."""
    recipe = changed(Recipe(), steps=STEPS, t_min=0.15, azimuth_bins=4, elevation_bins=1, **changes)
    assert recipe.camera.views == 4
    task = make_task(prior, "a red house", recipe)
    assert evaluations.in_3d(task, optimise) == 2 * 4 * kept + 2 * 4 * STEPS * each
    sds = make_task(prior, "a red house", with_method(recipe, "sds"))
    assert evaluations.in_3d(sds, optimise) == 2 * 4 * STEPS


def test_targets_of_the_refinement_are_counted(prior):
    """Two rounds at t0 = 799 and 100: of the kept ODE, then of one that is followed each time."""
    recipe = changed(Recipe(), steps=STEPS, rounds=2, groups=3, ddim_steps=5, azimuth_bins=4,
                     elevation_bins=1, t_min=0.15)  # fmt: skip
    task = make_task(prior, "a red house", recipe)
    unrefined = make_task(prior, "a red house", changed(recipe, rounds=0))
    more = evaluations.in_3d(task, optimise) - evaluations.in_3d(unrefined, optimise)
    assert more == 2 * 3 * 4 * (5 + 5)
    assert targets.predictions(prior, changed(recipe, views=1)) == 3 * 4 * (5 + 5)
    pairs = changed(recipe, group_views=2)
    assert targets.predictions(prior, pairs) == 3 * 2 * (5 + 3 + 5 + 10)
