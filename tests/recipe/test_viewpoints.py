"""The denoiser that a run gets from a prior without camera, against the authors' own."""

from functools import partial
from types import SimpleNamespace

import authors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.priors.stable_diffusion import Prior, load
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.viewpoints import Text, Viewpoint, condition

SETTINGS = Settings(views=2)


@pytest.fixture(scope="module")
def quick_compilation():
    """Not here: the network runs for longer than it compiles."""


def embedded(arrays):
    """The authors' prompts, with nan for the one that Perp-Neg does not ask for."""
    side, front, back, overhead = arrays["text_embeddings_vd"]
    views = jnp.stack([front, side, back, overhead])
    return Text(jnp.full_like(front, jnp.nan), views, jnp.asarray(arrays["uncond_embedding"]))


def viewpoint(arrays, indices):
    angles = (arrays[name][indices] for name in ("azimuth_deg", "elevation_deg"))
    return Viewpoint(*(np.deg2rad(angle).astype(np.float32) for angle in angles))


@pytest.mark.parametrize("i", range(6))
def test_perp_neg_is_the_authors(i):
    """From what the golden network said when it was asked with the authors' prompts."""
    arrays = authors.recorded()

    def network(x_t, t, conditioning):
        matters = np.array([True, True, *(arrays["perp_neg_weights"][i] != 0)])
        theirs = arrays["perp_neg_embeddings"][i]
        np.testing.assert_allclose(conditioning["text"][matters], theirs[matters], atol=1e-5)
        return jnp.asarray(arrays["eps"][i])

    prior = SimpleNamespace(has_camera=False, network=lambda params: network)
    prior.perp_neg_at = partial(Prior.perp_neg_at, prior)
    at = condition(prior, None, embedded(arrays), viewpoint(arrays, i), None, SETTINGS)
    eps = at(7.5)(jnp.zeros((2, 2, 2)), arrays["t"][i])
    authors.assert_relative(eps, arrays["eps_guided"][i])


@authors.needs_folder
@pytest.mark.parametrize("indices", [[0, 1], [2, 3], [4, 5]])
def test_perp_neg_is_the_authors_with_their_network(golden, indices):
    eps, arrays = golden
    x, t = arrays["latents"][indices], arrays["t"][indices].astype(np.int32)
    for ours, theirs in zip(
        eps(viewpoint(arrays, indices), x, t), arrays["eps_guided"][indices], strict=True
    ):
        authors.assert_relative(ours, theirs)


@pytest.fixture(scope="module")
def golden():
    """(viewpoints [v], x [v, h, w, c], t [v]) -> eps, guidance 7.5, as a step asks; the arrays."""
    prior, arrays = load(authors.FOLDER / "tiny_sd"), authors.whole()

    @jax.jit
    @partial(jax.vmap, in_axes=(None, None, 0, 0, 0))
    def eps(prior, text, viewpoint, x, t):
        return condition(prior, prior.params, text, viewpoint, None, SETTINGS)(7.5)(x, t)

    return partial(eps, prior, embedded(arrays)), arrays
