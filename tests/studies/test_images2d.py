"""Plain descent on latents, on a prior that is known exactly; more is in tests/test_image2d.py."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.distillation import METHODS
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.viewpoints import Shared
from dsd_jax.studies import images2d

SEEDS = range(8)


@pytest.fixture(scope="module")
def make(task):
    """(changes of the settings) -> a task on one wide mode, so that each seed has a picture."""
    prior = dataclasses.replace(task.prior, variance=0.3)

    def make(method: str = "dsd", **changes: Any) -> images2d.Task:
        base = Settings(views=1, steps=10, guidance_scale=3.0, eta=0.0, anchor="interpolated")
        settings = dataclasses.replace(base, **changes)
        shared = Shared(None, task.text)
        return images2d.Task(prior, METHODS[method], settings, shared, 0.5, 0.2, "latents")

    return make


def distances(task: images2d.Task, images, points: int):
    """Root mean square from each seed's picture to DDIM's of each seed, [n, n]."""
    sampled = np.asarray(images2d.ddim(task, SEEDS, points))
    return np.sqrt(np.mean((np.asarray(images)[:, None] - sampled) ** 2, (2, 3, 4)))


@pytest.mark.parametrize("anchor", ["interpolated", "trajectory"])
def test_it_is_ddim_if_the_simulated_ode_has_the_same_grid(make, anchor):
    task = make(anchor=anchor, ode_points=11)
    images = images2d.descend(task, SEEDS).images
    np.testing.assert_allclose(images, images2d.ddim(task, SEEDS, 11), atol=1e-5)


@pytest.mark.parametrize(("steps", "bound"), [(20, 0.05), (50, 0.1)])
def test_beside_a_coarser_ode_each_seed_stays_by_its_own_sample(make, steps, bound):
    """11 grid points of the simulated ODE, as in 3D; other seeds' samples are 0.28 away or more."""
    task = make(steps=steps)
    found = distances(task, images2d.descend(task, SEEDS).images, steps + 1)
    own = np.diagonal(found)
    assert own.max() < bound and own.mean() < bound / 2
    assert found[~np.eye(len(own), dtype=bool)].min() > 0.25


def test_another_guidance_at_t_prime_leaves_the_ode(make):
    task = make(guidance_scale_prime=1.0)
    own = np.diagonal(distances(task, images2d.descend(task, SEEDS).images, 11))
    assert own.min() > 0.1


def test_a_seed_knows_nothing_of_its_companions(make):
    together = images2d.descend(make(steps=4), [3, 7])
    alone = jnp.concatenate([images2d.descend(make(steps=4), [seed]).images for seed in (3, 7)])
    np.testing.assert_allclose(together.images, alone, atol=1e-5)
    assert together.strip.shape[:2] == (2, 4)
    np.testing.assert_array_equal(together.strip[:, -1], together.images)


@pytest.mark.parametrize("method", ["sds", "fsd", "vsd"])
def test_methods_that_take_no_t_prime_descend_too(make, method):
    seen = []
    found = images2d.descend(make(method, steps=2), [3, 7], seen.append).images
    assert seen == [1, 2] and np.isfinite(found).all() and np.ptp(found[0] - found[1]) > 0
