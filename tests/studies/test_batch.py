"""Pictures of the prior from several sides; objects are tested with the programs that make them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.export.pictures import to_uint8
from dsd_jax.priors import load_prior
from dsd_jax.recipe.recipe import Recipe, changed
from dsd_jax.studies import batch, images2d


@pytest.fixture(scope="module")
def prior(tiny_prior_folder):
    """With a network that listens to the camera and to other views more than a random one does."""
    prior = load_prior(str(tiny_prior_folder), jnp.float32)
    strong = jax.tree.map(lambda leaf: 4 * leaf, prior.params["unet"])
    return prior.replace(params=prior.params | {"unet": strong})


def sample(prior, views, azimuths):
    recipe = changed(Recipe(), views=views)
    return batch.sample_views(prior, "a red house", recipe, [3, 4], 4, azimuths, 15.0, size=16)


def test_a_single_view_is_that_of_2d(prior):
    found = sample(prior, 1, (30.0, 120.0))
    place = np.deg2rad(120.0), np.deg2rad(15.0)
    image = images2d.make_task(prior, "a red house", Recipe(), *place)
    expected = to_uint8(np.asarray(images2d.ddim(image, [3, 4], 4)))
    assert found.shape == (2, 2, 16, 16, 3)
    np.testing.assert_allclose(found[:, 1].astype(int), expected, atol=1)
    assert np.abs(found[:, 0].astype(int) - found[:, 1]).max() > 1


def test_one_azimuth_alone_is_a_view_like_any_other(prior):
    found = sample(prior, 1, (120.0,))
    assert found.shape == (2, 1, 16, 16, 3)
    np.testing.assert_array_equal(found[:, 0], sample(prior, 1, (30.0, 120.0))[:, 1])


def test_views_are_denoised_together_where_the_run_does_so(prior):
    """They attend to one another, so that another neighbour changes a view."""
    opposite, near = (sample(prior, 2, (0.0, other)) for other in (180.0, 90.0))
    assert np.abs(opposite[:, 0].astype(int) - near[:, 0]).max() > 1
    alone = [sample(prior, 1, (0.0, other))[:, 0] for other in (180.0, 90.0)]
    np.testing.assert_array_equal(*alone)
