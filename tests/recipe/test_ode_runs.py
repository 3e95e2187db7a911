"""Whole runs with a seed's ODE kept, against those that follow it at every step."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax import ode
from dsd_jax.engine import loop
from dsd_jax.engine.plan import initial_states, load_states, make_blocks, optimise_chunk
from dsd_jax.priors import stable_diffusion
from dsd_jax.recipe import kept_ode
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.state import seed_noise
from dsd_jax.recipe.viewpoints import Viewpoint, camera_at, condition, embed_prompt


@pytest.fixture(scope="module")
def optimise(task):
    """(folder, stop, changes) -> states of seeds 3 and 4 of a short run, and its last metrics."""
    blocks = {}

    def run(folder, stop=None, **changes):
        settings = {"steps": 8, "view_prompts": "none", "eta": 0.0, **changes}
        settings = dataclasses.replace(task.settings, **settings)
        prior = dataclasses.replace(task.prior, variance=0.5)
        short, mesh, seen = task._replace(settings=settings, prior=prior), loop.seed_mesh(2), []
        if settings not in blocks:
            blocks[settings] = make_blocks(short, mesh)
        states = optimise_chunk(
            short, [3, 4], blocks[settings], mesh, folder, seen.append,
            lambda: stop is not None and bool(seen) and seen[-1].done >= stop,
            saved=load_states(short, folder, [3, 4]),
        )  # fmt: skip
        return jax.device_get(states), seen[-1].metrics if seen else {}

    return run


@pytest.mark.parametrize("mode", ["nodes", "table"])
def test_resumed_run_is_the_unbroken_one_bit_for_bit(optimise, task, tmp_path, mode):
    """Checkpoints are without the cache, which is built anew."""
    unbroken, metrics = optimise(tmp_path / "whole", ode=mode)
    assert ("ode_error" in metrics) == (mode == "table")
    stopped, _ = optimise(tmp_path / "cut", stop=1, ode=mode)
    assert stopped.cache is None and 1 <= int(stopped.step[0]) < 8
    saved = load_states(task, tmp_path / "cut", [3, 4])
    assert [seed.state.cache for seed in saved.values()] == [None, None]
    resumed, _ = optimise(tmp_path / "cut", ode=mode)
    chex.assert_trees_all_equal(resumed, unbroken)


def test_all_modes_make_the_same_objects_where_bins_lose_nothing(optimise, task, tmp_path):
    """With the plain prompt there is one bin; what is left is bfloat16 and the interpolation."""
    start = initial_states(task, [3, 4])
    exact, nodes, table = (
        optimise(tmp_path / mode, ode=mode)[0] for mode in ("exact", "nodes", "table")
    )

    def size(change):
        return jnp.sqrt(jnp.mean(jnp.square(change)))

    for first, a, b, c in zip(
        *(jax.tree.leaves(states.params) for states in (start, exact, nodes, table)), strict=True
    ):
        moved = a - first
        assert size(b - a) < 1e-3 * size(moved) and size(c - a) < 1e-3 * size(moved)
        assert size(b - a) > 0 and size(c - a) > 0
        assert size(moved[1] - moved[0]) > 0.1 * size(moved)


def test_networks_whose_views_attend_to_one_another_do_not_mind_their_order(tiny_prior_folder):
    """The views of one noise a quarter further round are those of the bin, permuted."""
    prior = stable_diffusion.load(tiny_prior_folder)
    settings = Settings(
        ode="nodes", ode_points=4, ode_azimuth_bins=4, ode_elevation_bins=1, guidance_scale=2.0
    )
    text = embed_prompt(prior, "a red house", settings)
    noise = seed_noise(1, prior.latent_shape, settings)
    (azimuth,), (elevation,) = kept_ode.centres(prior, settings)
    viewpoint = Viewpoint(azimuth + np.pi / 2, elevation)

    @jax.jit
    def both(params):
        camera = camera_at(viewpoint, settings)
        denoiser_at = condition(prior, params, text, viewpoint, camera, settings)
        cache = kept_ode.build(prior, params, text, noise, settings, jnp.float32)
        kept = kept_ode.eps_at(cache, prior, params, text, viewpoint, settings)
        exact = ode.integrate(denoiser_at(2.0), prior.schedule, noise, ode.linear_grid(4), 500)
        return kept(jnp.int32(500)), exact.eps_t

    kept, exact = both(prior.params)
    np.testing.assert_allclose(kept, exact, atol=1e-5)
    assert np.abs(kept[0] - kept[1]).max() > 1e-3
