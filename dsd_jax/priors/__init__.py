"""What supplies a denoiser: exact Gaussian mixtures, and Stable Diffusion with its family."""

import difflib
from pathlib import Path

import jax.numpy as jnp

from dsd_jax.priors.stable_diffusion import Prior, load

EMBEDDED = {"toybox": Path(__file__).parents[1] / "assets" / "toybox"}


def load_prior(name_or_path: str | Path, dtype=jnp.float32, param_dtype=None) -> Prior:
    """The embedded prior of that name, or the prior in that folder (diffusers layout).

    `dtype` and `param_dtype` are as in `stable_diffusion.load`.
    Raises ValueError, with the nearest name, for what is neither a name nor a folder, and
    FileNotFoundError for an embedded prior whose weights are not installed.
    """
    name = str(name_or_path)
    if name in EMBEDDED:
        if not (EMBEDDED[name] / "model_index.json").is_file():
            raise FileNotFoundError(
                f"the weights of prior {name!r} are not in {EMBEDDED[name]}: reinstall dsd_jax, or "
                "make them with experiments/train_prior.py"
            )
        return load(EMBEDDED[name], dtype, param_dtype)
    if not Path(name).is_dir():
        nearest = difflib.get_close_matches(name.lower(), EMBEDDED, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"prior {name!r} is neither an embedded prior nor a folder; did you mean {nearest!r}?"
        )
    return load(name, dtype, param_dtype)
