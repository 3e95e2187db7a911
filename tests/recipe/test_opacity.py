"""Priors that see opacity: what they are handed, what they ask for, and what is shown of it."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples.own_prior import Flat

from dsd_jax.engine.task import make_task
from dsd_jax.recipe import presets, refine
from dsd_jax.recipe.recipe import changed
from dsd_jax.recipe.state import init_state
from dsd_jax.recipe.step import make_step
from dsd_jax.recipe.targets import no_targets
from dsd_jax.studies import images2d


@dataclass(frozen=True)
class Seen(Flat):
    """`Flat` pictures of a prompt's colour that are solid, or where it says so clear."""

    latent_shape: tuple = (4, 4, 4)
    sees_opacity: bool = True

    def condition(self, told, **_):
        solid = -1.0 if "clear" in told else 1.0
        return jnp.append(super().condition(told), solid)


@pytest.fixture(scope="module")
def recipe():
    return changed(
        presets.quick, steps=40, resolution=8, late_resolution=8, samples=8, levels=2,
        start_levels=2, log2_entries=8, width=8, occupancy_resolution=8, density_floor=0.0,
        guidance_scale=1.0, rounds=1, fit_steps=4, rays=64, groups=2, fit_samples=8,
        target_samples=8, ddim_steps=4, shape="density", opaque=0.0,
    )  # fmt: skip


def test_a_step_makes_an_object_as_solid_as_the_prior_wants_it(recipe):
    seen = {}
    for prompt in ("a solid red thing", "a clear red thing"):
        task = make_task(Seen(), prompt, recipe)
        step = jax.jit(make_step(task.prior, recipe))
        state, seen[prompt] = init_state(0, task.prior.latent_shape, recipe), []
        for _ in range(40):
            state, metrics = step(state, task.shared)
            seen[prompt].append(float(metrics["opacity"]))
    solid, clear = seen.values()
    assert solid[0] == clear[0] and solid[-1] > max(solid[0], clear[-1]) + 0.05


def test_targets_tell_opacity(recipe):
    task = make_task(Seen(), "a clear red thing", recipe)
    targets = no_targets(task.prior, recipe, 0)
    state = init_state(3, task.prior.latent_shape, recipe, targets=targets)
    state = dataclasses.replace(state, step=jnp.asarray(recipe.steps))
    found = jax.jit(refine.make_prepare(task.prior, recipe))(state, task.shared, True).targets
    assert found.told.all() and found.rgba.shape == targets.rgba.shape
    means = np.asarray(found.rgba, float).mean((0, 1, 2))
    assert means[0] > 230 and means[1:].max() < 25


@pytest.mark.parametrize("space", ["latents", "pixels", "network"])
def test_pictures_of_them_have_colours_alone(recipe, space):
    image = images2d.make_task(Seen(), "a solid red thing", changed(recipe, steps=2), space=space)
    found = images2d.optimise(image, [0, 1])
    assert found.images.shape == (2, 4, 4, 3) and images2d.ddim(image, [0], 3).shape == (1, 4, 4, 3)
