"""What the DSD authors' own code computed on a miniature of Stable Diffusion: whole, and recorded.

The environment variable DSD_GOLDEN names the folder of the whole, too large to be kept here:
tiny_sd/, a pipeline in diffusers layout, and dsd_official.npz, NCHW, with the authors' six
gradients and guided predictions on it. They go into golden/dsd_official.npz by

    DSD_GOLDEN=... python tests/authors.py

which holds, NHWC and float32, what tests need that have no network:

    noise, latents, grad [6, 8, 8, 4]   the corner of each latent, and of its gradient
    asked_scale, asked_t [44]           every question that our code asked the network when it
    asked_x_t, answer [44, 8, 8, 4]     came to these gradients, and the corner of its eps
    eps [6, 4, 2, 2, 2]                 eps of text, uncond and two negatives at (latents, t), and
    eps_guided [6, 2, 2, 2]             the authors' guided eps: whole latents as coordinates in
                                        their span, which guidance cannot tell from the latents
    *_embedding*                        of the last four tokens, in which all prompts differ
    the rest                            as it is
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax import guidance
from dsd_jax.distillation import DSD, Given
from dsd_jax.priors import stable_diffusion

_NAME = os.environ.get("DSD_GOLDEN", "")
FOLDER = Path(_NAME)
UNNAMED = "DSD_GOLDEN does not name the folder of dsd_official.npz and tiny_sd"
needs_folder = pytest.mark.skipif(not _NAME, reason=UNNAMED)
RECORD = Path(__file__).parent / "golden" / "dsd_official.npz"
SIDE, TOKENS = 8, 4


def recorded() -> dict[str, np.ndarray]:
    """The arrays of `RECORD`."""
    return dict(np.load(RECORD))


def whole() -> dict[str, np.ndarray]:
    """The authors' own file, NHWC, under the names of the recorded one."""
    arrays = dict(np.load(FOLDER / "dsd_official.npz"))
    arrays["eps_guided"] = arrays.pop("eps_guided_at_latents")
    for name in ("noise", "latents", "grad", "eps_guided"):
        arrays[name] = np.moveaxis(arrays[name], 1, -1)
    arrays["perp_neg_weights"] = arrays["perp_neg_weights"][:, 0]
    arrays["uncond_embedding"] = arrays["uncond_embedding"][0]
    return arrays


def gradient(denoiser_at, schedule, arrays, i) -> jax.Array:
    """Our gradient [h, w, c] in the authors' case i."""
    x, noise, t, t_prime = (arrays[name][i] for name in ("latents", "noise", "t", "t_prime"))
    t, given, key = jnp.int32(t), Given(t_prime=jnp.int32(t_prime)), jax.random.key(0)
    return DSD().gradient(key, denoiser_at, schedule, x, noise, t, given)[0]


def assert_relative(ours, theirs):
    """Equal to 1e-4 of the norm, and everywhere to 1e-4 of the largest value."""
    assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def record() -> dict[str, np.ndarray]:
    """The content of `RECORD`; AssertionError where the golden network does not give it."""
    arrays = {name: array for name, array in whole().items() if array.dtype.kind in "if"}
    prior = stable_diffusion.load(FOLDER / "tiny_sd")
    calls = []

    def note(scale, t, x_t, eps):
        x_t, eps = x_t[:SIDE, :SIDE], eps[:SIDE, :SIDE]
        calls.append({"asked_scale": scale, "asked_t": t, "asked_x_t": x_t, "answer": eps})

    def recording(prior, prompts, weights):
        text, uncond, negatives = ({"text": prompts[part]} for part in (0, 1, slice(2, None)))
        network = prior.network(prior.params)
        asked_at = guidance.perp_neg(network, text, uncond, negatives, weights)

        def denoiser_at(scale):
            def denoiser(x_t, t):
                eps = asked_at(scale)(x_t, t)
                jax.debug.callback(partial(note, scale), t, x_t, eps, ordered=True)
                return eps

            return denoiser

        return denoiser_at

    @jax.jit
    def case(prior, of_case):
        denoiser_at = recording(prior, of_case["perp_neg_embeddings"], of_case["perp_neg_weights"])
        one = {name: array[None] for name, array in of_case.items()}
        return gradient(denoiser_at, prior.schedule, one, 0)

    @jax.jit
    def prompts_at_latents(prior, of_case):
        x, t, text = (of_case[name] for name in ("latents", "t", "perp_neg_embeddings"))
        network = prior.network(prior.params)
        return network(jnp.broadcast_to(x, (4, *x.shape)), jnp.full(4, t), {"text": text})

    names = ("latents", "noise", "t", "t_prime", "perp_neg_embeddings", "perp_neg_weights")
    mixed = []
    for i in range(6):
        of_case = {name: arrays[name][i] for name in names}
        assert_relative(case(prior, of_case), arrays["grad"][i])
        mixed.append(in_their_span(prompts_at_latents(prior, of_case), arrays["eps_guided"][i]))
    jax.effects_barrier()
    arrays |= {name: np.asarray([call[name] for call in calls]) for name in calls[0]}
    arrays["eps"], arrays["eps_guided"] = map(np.stack, zip(*mixed, strict=True))
    for name in ("noise", "latents", "grad"):
        arrays[name] = arrays[name][:, :SIDE, :SIDE]
    for name in [name for name in arrays if "_embedding" in name]:
        arrays[name] = arrays[name][..., -TOKENS:, :]
    return arrays


def in_their_span(eps, guided) -> tuple[np.ndarray, np.ndarray]:
    """eps [4, h, w, c] and the authors' guided [h, w, c] as images [2, 2, 2] of the same products.

    Their coordinates in an orthonormal basis of the span of eps, turned at random into 8 numbers.
    """
    flat, guided = (np.asarray(image, np.float64) for image in (eps, guided))
    flat, guided = flat.reshape(4, -1), guided.ravel()
    basis = np.linalg.qr(flat.T)[0]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 4)))[0].T
    assert np.linalg.norm(guided - basis @ (basis.T @ guided)) < 1e-4 * np.linalg.norm(guided)
    images = (np.stack([*flat, guided]) @ basis @ turn).reshape(5, 2, 2, 2)
    return images[:4].astype(np.float32), images[4].astype(np.float32)


if __name__ == "__main__":
    if not _NAME:
        sys.exit(f"error: {UNNAMED}")
    content: dict[str, Any] = record()
    np.savez_compressed(RECORD, **content)
    print(f"{RECORD}: {RECORD.stat().st_size} bytes")
