"""What supplies a denoiser: exact Gaussian mixtures, Stable Diffusion's family, Zero-1-to-3's.

`base.Prior` says what a prior is; `completed` makes one of a class that has only what it must.
"""

import difflib
from pathlib import Path

import jax
import jax.numpy as jnp

from dsd_jax.models.hub import fetch, fetch_index, is_repo_id
from dsd_jax.models.ldm_config import read_config
from dsd_jax.models.tensor_files import PICKLES
from dsd_jax.models.zero123 import is_image_model
from dsd_jax.priors import stable_diffusion, zero123
from dsd_jax.priors.base import Picture, Prior, Viewpoint, completed

__all__ = [
    "EMBEDDED",
    "Picture",
    "Prior",
    "Viewpoint",
    "choose_precision",
    "completed",
    "fov_deg_of",
    "load_prior",
]

_ASSETS = Path(__file__).parents[1] / "assets"
EMBEDDED = {name: _ASSETS / name for name in ("toybox", "toybox-1to3")}


def load_prior(
    name_or_path: str | Path, dtype=jnp.float32, param_dtype=None, pose: str | None = None
) -> Prior:
    """The embedded prior of that name, or one in diffusers layout: a folder, or a repository.

    A repository of the Hugging Face hub is called "owner/name"; a folder of the same name goes
    first. What ends in .safetensors is a checkpoint in one file, as in `models.ldm_pipeline`.
    `dtype` and `param_dtype` are as in `stable_diffusion.load`. `pose` says of the Zero-1-to-3
    family what its files may leave open: what the pose's last number is, "distance" (Zero-1-to-3,
    Zero123-XL) or "elevation" (Stable Zero123).
    Returns a `stable_diffusion.Prior`, or a `zero123.Prior` for a model that takes an image.
    Raises ValueError, with the nearest name, for what is none of these, for a pickle, and for a
    `pose` that is missing, or given to a model that takes a prompt;
    FileNotFoundError for an embedded prior whose weights are not installed; and what
    `models.hub.fetch` and the loaders of the two kinds raise.
    """
    path = Path(name_or_path)
    if path.suffix == ".safetensors" and not path.is_dir():
        config = read_config(path, pose)
        if "image_encoder" in config:
            return zero123.load_file(path, dtype, param_dtype, config)
        _takes_no_pose(path, pose)
        return stable_diffusion.load_file(path, dtype, param_dtype, config)
    folder = _folder(str(name_or_path), pose)
    if is_image_model(path.name for path in folder.iterdir()):
        return zero123.load(folder, dtype, param_dtype, pose)
    _takes_no_pose(folder, pose)
    return stable_diffusion.load(folder, dtype, param_dtype)


def fov_deg_of(name_or_path: str | Path) -> float:
    """The vertical field of view, degrees, of the pictures that a model which takes one knows.

    Where its model_index.json does not say it, Zero-1-to-3's. Of a repository of the hub that file
    alone is fetched. Raises ValueError where its entry is no angle, and as `hub.fetch_index`.
    """
    name = str(name_or_path)
    folder = EMBEDDED.get(name, Path(name))
    if not folder.exists() and folder.suffix != ".safetensors" and is_repo_id(name):
        folder = fetch_index(name)
    if not (folder / "model_index.json").is_file():
        return zero123.FOV_DEG
    return zero123.fov_deg_of(folder)


def choose_precision(asked: str | None = None) -> str:
    """Type of a prior's networks: `asked`, or float32 on a CPU and bfloat16 on an accelerator."""
    return asked or ("float32" if jax.default_backend() == "cpu" else "bfloat16")


def _takes_no_pose(place: Path, pose: str | None) -> None:
    if pose is not None:
        raise ValueError(f"{place} takes a prompt and not a picture: leave --pose out")


def _folder(name: str, pose: str | None) -> Path:
    """Where a prior lies, after the download if there is one."""
    path = Path(name)
    if name in EMBEDDED:
        if not (EMBEDDED[name] / "model_index.json").is_file():
            raise FileNotFoundError(
                f"the weights of prior {name!r} are not in {EMBEDDED[name]}: reinstall dsd_jax, or "
                "make them with experiments/train_prior.py"
            )
        return EMBEDDED[name]
    if path.is_dir():
        return path
    if path.suffix.lower() in PICKLES:
        raise ValueError(
            f"{name} is a pickle, which can run code and is not read; convert it: "
            f"python experiments/tools/convert_weights.py {name} {path.with_suffix('.safetensors')}"
        )
    if is_repo_id(name) and not path.exists():
        return fetch(name, pose=pose)
    nearest = difflib.get_close_matches(name.lower(), EMBEDDED, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"prior {name!r} is neither an embedded prior nor a folder nor a repository of the hub "
        f"(owner/name); did you mean {nearest!r}?"
    )
