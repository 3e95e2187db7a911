"""The elevation of a picture, found from the views of a prior that draws a known cube."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.priors import zero123
from dsd_jax.priors.gaussian import GaussianMixture
from dsd_jax.recipe import elevation
from dsd_jax.recipe.recipe import changed
from dsd_jax.recipe.viewpoints import Reference
from dsd_jax.rendering.cameras import orbit
from dsd_jax.rendering.mesh import Lights, render_mesh
from dsd_jax.schedule import NoiseSchedule

TRUE_DEG = 30.0


@pytest.fixture(scope="module")
def quick_compilation():
    """Not here: the views take longer to draw than to compile."""


def cube_seen(azimuth, elevation):
    """A cube of many colours, turned a little, from there: RGBA [64, 64, 4], premultiplied."""
    cube = trimesh.creation.box((0.8, 0.8, 0.8)).subdivide().subdivide()
    colours = np.random.default_rng(0).uniform(0, 1, (len(cube.faces), 3))
    light = Lights(np.ones(()), np.zeros((1, 3)), np.zeros(1))
    camera = orbit(azimuth + 0.4, elevation, 2.7, jnp.deg2rad(40.0))
    shape = (jnp.asarray(part) for part in (cube.vertices, cube.faces, colours))
    return render_mesh(*shape, camera, light, 64)


class OfCube(zero123.Prior):
    """Draws the cube as it is seen after a move from `TRUE_DEG`, whatever the picture."""

    @property
    def latent_shape(self):
        return (64, 64, 3)

    def decode(self, params, x):
        return (x + 1) / 2

    def condition(self, told, **words):
        return zero123.ImageConditioning(jnp.ones((1, 3)), jnp.zeros((64, 64, 3)), told.elevation)

    def denoiser_at_pose(self, params, image, pose):
        rgba = cube_seen(jnp.arctan2(pose[1], pose[2]), jnp.deg2rad(TRUE_DEG) - pose[0])
        mean = 2 * (rgba[..., :3] + 1 - rgba[..., 3:]) - 1
        mixture = GaussianMixture(jnp.zeros(1), mean[None], jnp.array(1e-3))
        return lambda scale: lambda x, t: mixture.eps(self.schedule, x, t)


@pytest.fixture
def cube():
    """For each kind of prior, a prior of the cube."""
    schedule, networks = NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER), None
    return lambda kind="distance", of=OfCube: of(None, schedule, networks, Path(), kind)


@pytest.fixture(scope="module")
def picture():
    """The cube's, with another elevation, which is not to be looked at."""
    rgba = jax.jit(cube_seen)(0.0, jnp.deg2rad(TRUE_DEG))
    return Reference(jnp.deg2rad(-5.0), rgba[..., :3] + 1 - rgba[..., 3:], rgba[..., 3])


@pytest.mark.parametrize("kind", ["distance", "elevation"])
def test_the_elevation_is_found_from_the_prior_s_own_views(
    recipe, cube, picture, kind, monkeypatch
):
    """Nothing but the views tells it; both kinds of priors."""
    monkeypatch.setattr(elevation, "_STEPS", 4)  # enough for a prior that knows one picture
    costs = elevation.mismatches(cube(kind), picture, changed(recipe, background="white"))
    assert costs is not None and tuple(costs) == elevation.CANDIDATES_DEG
    assert min(costs, key=lambda at: costs[at]) == TRUE_DEG
    assert costs[TRUE_DEG] < 0.7 * costs[0.0]
    assert elevation.likely(costs) == pytest.approx(TRUE_DEG, abs=1.5)


def test_where_all_fits_equally_the_usual_elevation_is_likely():
    even = dict.fromkeys(map(float, elevation.CANDIDATES_DEG), 0.1)
    assert elevation.likely(even) == pytest.approx(elevation.USUAL_DEG, abs=1)
    assert elevation.likely(even | {0.0: 0.05}) < 1  # clearly better than the others


class Blind(OfCube):
    def tells_apart(self, condition):
        return "nothing"


class Broken(OfCube):
    def denoiser_at_pose(self, params, image, pose):
        return lambda scale: lambda x, t: jnp.full_like(x, jnp.nan)


@pytest.mark.parametrize("of", [Blind, Broken])
def test_a_prior_that_cannot_tell_says_so(recipe, cube, picture, of, monkeypatch):
    monkeypatch.setattr(elevation, "_STEPS", 2)
    assert elevation.estimate(cube(of=of), picture, recipe) is None
