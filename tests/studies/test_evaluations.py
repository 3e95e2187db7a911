"""Evaluations of the UNet, counted and worked by hand."""

import dataclasses

import jax.numpy as jnp
import pytest

from dsd_jax.distillation import METHODS
from dsd_jax.priors import load_prior
from dsd_jax.recipe import annealing
from dsd_jax.recipe.presets import Settings
from dsd_jax.studies import evaluations, images2d

STEPS = 3
SETTINGS = Settings(steps=STEPS, views=1, t_min=0.02, eta=0.0, t_prime_offset=0.0)


@pytest.fixture(scope="module")
def prior(tiny_prior_folder, quick_compilation):
    return load_prior(str(tiny_prior_folder), jnp.float32)


def optimise(task):
    return images2d.optimise(task, [0]).images


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
        ("sdi", 10 * 2 + 2),
        ("fsd", 2),
        ("cfd", 2),
    ],
)
def test_steps_of_a_method(prior, method, each):
    assert evaluations.count(prior, METHODS[method], SETTINGS, optimise) == STEPS * each


@pytest.mark.parametrize(("anchor", "prime"), [("trajectory", 0), ("interpolated", 1)])
def test_the_simulated_ode_counts(prior, anchor, prime):
    """t' is t: the grid points above t, eps at t', the prediction at t, and that at w' = 1."""
    settings = dataclasses.replace(SETTINGS, anchor=anchor)
    times = [int(annealing.run_timestep(i, settings, prior.schedule)) for i in range(STEPS)]
    grid = [999, 899, 799, 699, 599, 499, 399, 299, 199, 99, 0]
    above = [sum(point > t for point in grid) for t in times]
    assert above[0] == 1 < above[1] < above[2]
    expected = sum(2 * (n + 1 + 1) + prime for n in above)
    assert evaluations.count(prior, METHODS["dsd"], settings, optimise) == expected


def test_sampling_and_following(prior):
    def count(run):
        return evaluations.count(prior, METHODS["dsd"], SETTINGS, run)

    assert count(lambda task: images2d.ddim(task, [0, 1], 7)) == 2 * 7 * 2
    assert count(lambda task: images2d.follow(task, [0]).images) == 2 * STEPS


def test_plain_descent(prior):
    """The start, and at t' = 999, 666 and 333: eps there by the ODE, and two predictions."""
    settings = dataclasses.replace(SETTINGS, anchor="interpolated")

    def run(task):
        return images2d.descend(task, [0]).images

    found = evaluations.count(prior, METHODS["dsd"], settings, run)
    assert found == 2 * (1 + (1 + 2) + (5 + 2) + (8 + 2))


def test_without_guidance_one_picture_is_enough(prior):
    settings = dataclasses.replace(SETTINGS, guidance_scale=1.0)
    assert evaluations.count(prior, METHODS["sds"], settings, optimise) == STEPS


def test_views_go_through_the_network_one_by_one_or_together(prior):
    """The same number either way."""
    calls = []
    fake = evaluations.CountingPrior(
        None, prior.schedule, prior.networks, prior.folder, on_call=calls.append
    )
    x, text = jnp.zeros((4, 1, 1, 1)), jnp.zeros((1, 1))
    fake.denoiser_at(None, text, text, jnp.zeros((4, 16)), 4)(5.0)(x, 500).block_until_ready()
    fake.denoiser_at(None, text, text, jnp.zeros(16))(5.0)(x[0], 500).block_until_ready()
    assert calls == [8, 2]


@pytest.mark.parametrize(
    ("changes", "kept", "each"),
    [
        ({"ode": "table"}, 10, 1),  # the grid down to 99, below t_min
        ({"ode": "table", "ode_table_points": 4}, 9 + 4, 1),
        ({"ode": "nodes"}, 9, 2),
    ],
)
def test_a_kept_ode_is_built_for_every_bin_and_asked_no_more(prior, changes, kept, each):
    """4 views of one bin, denoised together, in 3 steps."""
    settings = Settings(
        steps=STEPS, views=4, t_min=0.15, ode_azimuth_bins=4, ode_elevation_bins=1, **changes
    )
    count = evaluations.in_3d(prior, METHODS["dsd"], settings, optimise)
    assert count == 2 * 4 * kept + 2 * 4 * STEPS * each
    sds = evaluations.in_3d(prior, METHODS["sds"], settings, optimise)
    assert sds == 2 * 4 * STEPS
