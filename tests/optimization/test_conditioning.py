"""The denoiser that a run gets from a prior without camera, against the authors' own."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.optimization.conditioning import Text, Viewpoint, condition
from dsd_jax.optimization.presets import Settings
from dsd_jax.priors.stable_diffusion import load

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = np.load(FOLDER / "dsd_official.npz")


@pytest.fixture(scope="module")
def quick_compilation():
    """Not here: the network runs for longer than it compiles."""


@pytest.fixture(scope="module")
def guided():
    """Indices [v] of golden cameras -> eps [v, h, w, c] there, guidance 7.5, as a step asks."""
    prior = load(FOLDER / "tiny_sd")
    side, front, back, overhead = GOLDEN["text_embeddings_vd"]
    views = jnp.stack([front, side, back, overhead])
    text = Text(jnp.full_like(front, jnp.nan), views, jnp.asarray(GOLDEN["uncond_embedding"][0]))
    settings = Settings(views=2)

    @jax.jit
    @partial(jax.vmap, in_axes=(None, None, 0, 0, 0))
    def eps(prior, text, viewpoint, x, t):
        return condition(prior, prior.params, text, viewpoint, None, settings)(7.5)(x, t)

    def at(indices):
        azimuth, elevation, x, t = (
            GOLDEN[name][indices] for name in ("azimuth_deg", "elevation_deg", "latents", "t")
        )
        angles = (np.deg2rad(angle).astype(np.float32) for angle in (azimuth, elevation))
        x, t = np.moveaxis(x, 1, -1), t.astype(np.int32)
        return eps(prior, text, Viewpoint(*angles), x, t)

    return at


@pytest.mark.parametrize("indices", [[0, 1], [2, 3], [4, 5]])
def test_perp_neg_is_the_authors_guided_prediction(guided, indices):
    theirs = np.moveaxis(GOLDEN["eps_guided_at_latents"][indices], 1, -1)
    for ours, expected in zip(guided(indices), theirs, strict=True):
        assert np.linalg.norm(ours - expected) < 1e-4 * np.linalg.norm(expected)
