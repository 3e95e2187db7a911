"""What a prior without camera is told of a view, and its denoiser against the authors' own."""

from functools import partial

import authors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models.networks import Networks
from dsd_jax.priors.base import Viewpoint, angle_from_front
from dsd_jax.priors.stable_diffusion import Prior, load
from dsd_jax.priors.view_words import VIEWS, Text, blend, of_views, view_index, words_for

SCALE = 7.5


def at(azimuth_deg, elevation_deg):
    angles = (jnp.deg2rad(jnp.float32(angle)) for angle in (azimuth_deg, elevation_deg))
    return Viewpoint(*angles, jnp.eye(4))


# Front 0 1, side 2 3, back 4 5, overhead 6 7.
TOLD = Text(jnp.full((1, 2), 9.0), jnp.arange(8.0).reshape(4, 1, 2), jnp.zeros((1, 2)))


@pytest.mark.parametrize(
    ("azimuth", "elevation", "index"),
    [(0, 0, 0), (44, 0, 0), (-44, 0, 0), (316, 0, 0), (46, 0, 1), (270, 0, 1), (180, 0, 2),
     (136, 0, 2), (0, 61, 3), (0, 59, 0)],
)  # fmt: skip
def test_words_for_a_view(azimuth, elevation, index):
    assert int(view_index(at(azimuth, elevation))) == index
    told = words_for(TOLD.replace(view_prompts="words"), at(azimuth, elevation))
    np.testing.assert_array_equal(told, TOLD.views[index])
    assert of_views("a cat")[index] == f"a cat, {VIEWS[index]}"


def test_left_and_right_are_as_far_from_the_front():
    found = angle_from_front(jnp.deg2rad(jnp.array([0.0, 30, -30, 180, -180, 350, 730])))
    np.testing.assert_allclose(jnp.rad2deg(found), [0, 30, 30, 180, 180, 10, 10], atol=1e-3)


def test_a_view_that_is_not_to_be_told_is_not():
    found = words_for(TOLD.replace(view_prompts="none"), at(180, 0))
    np.testing.assert_array_equal(found, TOLD.plain)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "words", "negatives"),
    [(45, 0, [1, 2], [[0, 1], [2, 3]]), (-90, 0, [2, 3], [[0, 1], [2, 3]]),
     (495, 59, [3, 4], [[2, 3], [0, 1]]), (180, 61, [6, 7], [[2, 3], [0, 1]])],
)  # fmt: skip
def test_words_are_blended_between_views(azimuth, elevation, words, negatives):
    """The negatives are the views not seen."""
    told = blend(TOLD, at(azimuth, elevation))
    np.testing.assert_allclose(told.text, [words], atol=1e-5)
    np.testing.assert_allclose(told.negatives, np.array(negatives)[:, None])
    assert (jnp.all(told.weights == 0)) == (elevation > 60)
    np.testing.assert_array_equal(words_for(TOLD, at(azimuth, elevation)), told.text)


# ---- the denoiser ---------------------------------------------------------------------------


class Asked(Prior):
    """A prior without camera whose network is a function; its eps is what the text is."""

    ask = staticmethod(lambda x, t, conditioning: conditioning["text"][:, 0, 0, None, None, None])

    @property
    def denoises_together(self):
        return False

    def network(self, params, num_views=1):
        assert num_views == 1
        return self.ask


def asked(ask=Asked.ask):
    networks = Networks(None, None, None)  # pyright: ignore[reportArgumentType]
    prior = Asked(None, None, networks, None)  # pyright: ignore[reportArgumentType]
    object.__setattr__(prior, "ask", ask)
    return prior


@pytest.mark.parametrize(
    ("view_prompts", "apart", "samples", "plain"),
    [("perp-neg", "sides", 4, 3.0), ("words", "words", 2, 4.0), ("none", "nothing", 2, 9.0)],
)
def test_a_prior_without_camera_is_told_the_view_in_words(view_prompts, apart, samples, plain):
    """From 135 degrees: between side 2 and back 4."""
    prior, told = asked(), TOLD.replace(view_prompts=view_prompts)
    view, x = at(136 if view_prompts == "words" else 135, 0), jnp.zeros((1, 1, 1))
    assert prior.tells_apart(told) == apart
    assert prior.samples_per_prediction(told) == samples
    found = prior.prediction_at(None, told, view)(x, 500)
    np.testing.assert_allclose(found, [[[plain]]], atol=1e-5)
    guided = prior.denoiser_at(None, told, view)(SCALE)(x, 500)
    # Numbers are all along one line: nothing of a negative is orthogonal to the direction.
    np.testing.assert_allclose(guided, [[[SCALE * plain]]], rtol=1e-5)


def embedded(arrays):
    """The authors' prompts, with nan for the one that Perp-Neg does not ask for."""
    side, front, back, overhead = arrays["text_embeddings_vd"]
    views = jnp.stack([front, side, back, overhead])
    return Text(jnp.full_like(front, jnp.nan), views, jnp.asarray(arrays["uncond_embedding"]))


def viewpoint(arrays, indices):
    angles = (arrays[name][indices] for name in ("azimuth_deg", "elevation_deg"))
    azimuth, elevation = (np.deg2rad(angle).astype(np.float32) for angle in angles)
    return Viewpoint(azimuth, elevation, np.broadcast_to(np.eye(4), (*azimuth.shape, 4, 4)))


@pytest.mark.parametrize("i", range(6))
def test_perp_neg_is_the_authors(i):
    """From what the golden network said when it was asked with the authors' prompts."""
    arrays = authors.recorded()

    def network(x_t, t, conditioning):
        matters = np.array([True, True, *(arrays["perp_neg_weights"][i] != 0)])
        theirs = arrays["perp_neg_embeddings"][i]
        np.testing.assert_allclose(conditioning["text"][matters], theirs[matters], atol=1e-5)
        return jnp.asarray(arrays["eps"][i])

    denoiser_at = asked(network).denoiser_at(None, embedded(arrays), viewpoint(arrays, i))
    eps = denoiser_at(SCALE)(jnp.zeros((2, 2, 2)), arrays["t"][i])
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
        return prior.denoiser_at(prior.params, text, viewpoint)(SCALE)(x, t)

    return partial(eps, prior, embedded(arrays)), arrays
