"""Pictures in 2D: plain descent on a prior that is known exactly, and every space."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.priors import load_prior
from dsd_jax.priors.gaussian import GaussianPrior
from dsd_jax.recipe import presets
from dsd_jax.recipe.recipe import changed
from dsd_jax.studies import batch, images2d
from dsd_jax.studies.free import ImageTask

SEEDS = range(8)


@pytest.fixture(scope="module")
def make(red_and_blue):
    """(method, numbers of its recipe) -> a red thing by it, by plain steps unless it says else."""

    def make(name: str = images2d.PLAIN, steps: int = 10, **numbers: Any) -> ImageTask:
        base = changed(images2d.PICTURES, steps=steps, guidance_scale=3.0)
        recipe = images2d.recipe_by(base, name, **numbers)
        return images2d.make_task(red_and_blue, "a red thing", recipe, 0.5, 0.2)

    return make


def distances(image: ImageTask, images, points: int):
    """Root mean square from each seed's picture to DDIM's of each seed, [n, n]."""
    sampled = np.asarray(images2d.ddim(image, SEEDS, points))
    return np.sqrt(np.mean((np.asarray(images)[:, None] - sampled) ** 2, (2, 3, 4)))


def test_a_recipe_by_plain_steps_follows_its_ode_unless_it_is_told_otherwise():
    recipe = images2d.recipe_by(images2d.PICTURES, images2d.PLAIN, steps=7, guidance_scale=2.0)
    assert recipe.method.ode_points == 8 and recipe.method.anchor == "interpolated"
    assert recipe.method.guidance_scale_prime == recipe.method.guidance_scale == 2
    other = images2d.recipe_by(recipe, images2d.PLAIN, ode_points=11, guidance_scale_prime=1.0)
    assert other.method.ode_points == 11 and other.method.guidance_scale_prime == 1
    assert images2d.recipe_by(images2d.PICTURES, images2d.STAR) == images2d.PICTURES


@pytest.mark.parametrize("anchor", ["interpolated", "trajectory"])
def test_plain_descent_is_ddim_if_the_simulated_ode_has_the_same_grid(make, anchor):
    image = make(anchor=anchor)
    images = images2d.descend(image, SEEDS).images
    np.testing.assert_allclose(images, images2d.ddim(image, SEEDS, 11), atol=1e-5)


def test_the_ode_itself_is_ddim(make):
    image = make(images2d.STAR)
    images = images2d.follow(image, SEEDS).images
    np.testing.assert_allclose(images, images2d.ddim(image, SEEDS, 10), atol=1e-5)


class Marked(ImageTask):
    """Whose second seed has a noise far from all others."""

    def noises(self, seeds):
        return super().noises(seeds).at[1].set(50.0)


@dataclass
class Explosive:
    """A prior beside itself where a sample is far from all others."""

    prior: GaussianPrior

    def __getattr__(self, name):
        return getattr(self.prior, name)

    def denoiser_at(self, *told):
        def at(scale):
            calm = self.prior.denoiser_at(*told)(scale)
            return lambda x, t: calm(x, t) + jnp.where(jnp.abs(x).max() > 30, 1e20 * x, 0.0)

        return at


@pytest.mark.parametrize("name", [images2d.STAR, images2d.PLAIN, "dsd"])
def test_a_seed_that_diverges_is_frozen_and_named_at_once(make, name, capsys):
    """In the first two steps, after which it is looked; the others are the same bit for bit."""
    image, seeds, told = make(name, steps=20), [3, 5, 7], []
    image = image._replace(task=image.task._replace(prior=Explosive(image.prior)))
    naming = batch.Naming("a red thing", seeds, 20)

    def watch(step, frozen):
        naming(step, frozen)
        told.append(capsys.readouterr().err)

    found = images2d.way_of(name)(Marked(*image), seeds, watch)
    assert told[1] == (
        "a red thing: seed 5: diverged: its numbers are no longer finite after step 2; "
        "no score counts it\n"
    )
    assert not "".join(told[:1] + told[2:]) and naming.named == {5}
    assert images2d.finite(np.asarray(found.images)).tolist() == [True, False, True]
    assert np.isfinite(found.strip).all()  # it stays as it was
    others = images2d.way_of(name)(image, seeds).images[::2]
    np.testing.assert_array_equal(found.images[::2], others)


@pytest.mark.parametrize(("steps", "bound"), [(20, 0.05), (50, 0.1)])
def test_beside_a_coarser_ode_each_seed_stays_by_its_own_sample(make, steps, bound):
    """11 grid points of the simulated ODE, as in 3D; other seeds' samples are 0.28 away or more."""
    image = make(steps=steps, ode_points=11)
    found = distances(image, images2d.descend(image, SEEDS).images, steps + 1)
    own = np.diagonal(found)
    assert own.max() < bound and own.mean() < bound / 2
    assert found[~np.eye(len(own), dtype=bool)].min() > 0.25


def test_another_guidance_at_t_prime_leaves_the_ode(make):
    image = make(guidance_scale_prime=1.0)
    own = np.diagonal(distances(image, images2d.descend(image, SEEDS).images, 11))
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
    watched = lambda step, frozen: seen.append((step, frozen.tolist()))  # noqa: E731
    found = images2d.descend(make(method, steps=2), [3, 7], watched).images
    assert (
        seen == [(1, [False, False]), (2, [False, False])]
        and np.isfinite(found).all()
        and np.ptp(found[0] - found[1]) > 0
    )


@pytest.mark.parametrize(("method", "numbers"), [("nfsd", {"bad_text": "blue"}),
                                                 ("asd", {"lora_rate": 0.1})])  # fmt: skip
def test_methods_get_what_they_ask_for(make, method, numbers):
    """NFSD a prompt of its own, ASD (and so VSD) a network of each seed and the prior's text."""
    found = images2d.optimise(make(method, steps=2, **numbers), [0, 1])
    assert np.isfinite(found.images).all() and np.ptp(found.images[0] - found.images[1]) > 0


@pytest.mark.parametrize("space", ["pixels", "network"])
def test_plain_descent_of_an_image_is_refused(make, space):
    with pytest.raises(ValueError, match=f"moves latents alone, not --space {space}"):
        images2d.descend(make()._replace(space=space), [0])


def test_an_unknown_space_is_refused(red_and_blue):
    with pytest.raises(ValueError, match="--space 'voxels' is not one of latents, pixels, network"):
        images2d.make_task(red_and_blue, "red", images2d.PICTURES, space="voxels")


def test_of_a_recipe_of_several_views_one_is_left(red_and_blue):
    assert presets.standard.camera.views == 4
    assert images2d.make_task(red_and_blue, "red", presets.standard).recipe.camera.views == 1


@pytest.mark.parametrize(
    "space",
    ["latents", *(pytest.param(space, marks=pytest.mark.slow) for space in ("pixels", "network"))],
)
def test_every_space_moves_towards_the_prior(tiny_prior_folder, space):
    """Down the gradient of SDS the pictures change, each seed by itself."""
    recipe = images2d.recipe_by(images2d.PICTURES, "sds", steps=3, grid_rate=0.05)
    prior = load_prior(str(tiny_prior_folder), jnp.float32)
    image = images2d.make_task(prior, "a red house", recipe, 0.5, 0.2, space)
    found = images2d.optimise(image, [0, 1])
    assert found.strip.shape[:2] == (2, 3) and found.images.shape[0] == 2
    np.testing.assert_array_equal(found.strip[:, -1], found.images)
    assert np.abs(found.strip[:, 0] - found.images).max() > 1e-4
    alone = images2d.optimise(image, [1])
    np.testing.assert_allclose(found.images[1], alone.images[0], atol=2e-3)


@pytest.mark.parametrize(("steps", "kept"), [(1, {0}), (3, {0, 1, 2}), (16, set(range(1, 16, 2)))])
def test_the_strip_is_spread_evenly_and_ends_with_the_last_step(steps, kept):
    assert images2d._strip(steps) == kept
