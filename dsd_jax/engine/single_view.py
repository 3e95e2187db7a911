"""One picture to 3D: the recipe, what its prior is told, and how far the objects agree with it.

Letters: n seeds, h w pixels, s side of the picture.
"""

import dataclasses
import hashlib
import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from dsd_jax.distillation.common import Method
from dsd_jax.engine.plan import Task
from dsd_jax.engine.results import Scores
from dsd_jax.export.field_grid import density_grid, field_of, field_views, occupancy_of
from dsd_jax.export.pictures import to_uint8
from dsd_jax.export.run_folder import seed_folder
from dsd_jax.export.scenes import load_scene
from dsd_jax.metrics import diversity, efficientnet
from dsd_jax.priors import EMBEDDED
from dsd_jax.priors.zero123 import ImageConditioning
from dsd_jax.recipe import presets, reference
from dsd_jax.recipe.input_picture import InputPicture
from dsd_jax.recipe.presets import Settings, resolved
from dsd_jax.recipe.state import make_scene
from dsd_jax.recipe.viewpoints import Picture, takes_picture
from dsd_jax.rendering.agreement import iou, psnr
from dsd_jax.rendering.scene import GREY, PLAIN

SCORED_SIZE = 128

# Zero-1-to-3's own camera, and that of Toybox.
FOV_DEG, TOYBOX_FOV_DEG = 49.1, 40.0

_RECIPE: dict[str, Any] = {
    "eta": 0.0,
    "visible_eta": 1.0,
    "guidance_scale": 2.0,
    "total_variation": 100.0,
    "background": "white",
    "view_prompts": "none",
}
PRESETS: dict[str, Settings] = {
    name: dataclasses.replace(presets.PRESETS[name], **_RECIPE) for name in ("quick", "standard")
}


def framing(prior: str, fov_deg: float | None = None) -> dict[str, float]:
    """The settings of the camera: the picture's field of view, and its distance.

    The distance is such that the frame always spans as much of the world, see `input_picture`.

    Args:
        prior: as `load_prior` takes it.
        fov_deg: left out, that of the prior's training pictures.
    """
    usual = TOYBOX_FOV_DEG if prior in EMBEDDED else FOV_DEG
    fov_deg = usual if fov_deg is None else fov_deg
    if not 0 < fov_deg < 180 or fov_deg == TOYBOX_FOV_DEG:
        return {"fov_deg": fov_deg, "distance": presets.PRESETS["standard"].distance}
    spanned = Settings().distance * math.tan(math.radians(TOYBOX_FOV_DEG / 2))
    return {"fov_deg": fov_deg, "distance": spanned / math.tan(math.radians(fov_deg / 2))}


def check(method: Method, name: str, settings: Settings) -> None:
    """Refuse what does not go with a picture.

    Raises:
        ValueError: the method `name` needs a prompt; the background is not plain.
    """
    if "negative" in inspect.signature(method.gradient).parameters:
        raise ValueError(
            f"--method {name} needs a prompt for bad pictures, which a prior that takes a picture "
            "does not read; take dsd or sds"
        )
    if settings.background not in PLAIN:
        raise ValueError(
            f"--background must be {' or '.join(PLAIN)} for a picture, not {settings.background}"
        )


def warnings(image: Path, picture: InputPicture) -> list[str]:
    """What a user should know of the cut-out, in one line."""
    if not picture.doubts:
        return []
    doubts = "; ".join(picture.doubts)
    return [f"what was cut out of {image} is doubtful: {doubts}; --mask says where the object is"]


def fingerprint(picture: InputPicture) -> str:
    """A name for what a run sees of a picture, so that another of the same file name differs."""
    parts = [part for part in picture[:4] if part is not None]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]


def make_task(prior: Any, picture: Picture, method: Method, settings: Settings) -> Task:
    """Everything that all seeds of a picture share; the prior without its image encoder."""
    settings = resolved(settings, method)
    params = {name: tree for name, tree in prior.params.items() if name != "image_encoder"}
    prior = dataclasses.replace(prior, params=params)
    return Task(prior, make_scene(settings), method, settings, picture)


def check_prior(prior: Any) -> None:
    """Refuse, with a ValueError, a prior that takes no picture."""
    if not takes_picture(prior):
        raise ValueError(
            f"{prior.folder} takes a prompt and not a picture: experiments/text3d.py is for it; "
            "single_view.py takes --prior toybox-1to3 or one of the Zero-1-to-3 family"
        )


def embed_picture(prior: Any, picture: InputPicture, elevation_deg: float) -> Picture:
    """What a run needs of a picture.

    Args:
        elevation_deg: of the camera that took it.

    Raises:
        ValueError: the prior takes no picture.
    """
    check_prior(prior)
    rgb, mask, depth, normal, _ = picture
    image = _encoded(prior, jnp.asarray(rgb))
    elevation = jnp.asarray(math.radians(elevation_deg), jnp.float32)
    parts = [None if part is None else jnp.asarray(part) for part in (depth, normal)]
    return Picture(image, elevation, jnp.asarray(rgb), jnp.asarray(mask), *parts)


@jax.jit
def _encoded(prior: Any, rgb: Float[Array, "s s 3"]) -> ImageConditioning:
    """What the prior is told of a picture; compiled once for all of one size."""
    return prior.encode_image(prior.params, rgb)


def scores(
    run: Path,
    picture: Picture,
    settings: Settings,
    seeds: Sequence[int],
    views: UInt8[np.ndarray, "n 8 h w 3"],
) -> Scores:
    """Diversity between seeds, and each seed's agreement with the picture.

    Returns for each seed, beside "diversity", "psnr_db" and "mask_iou" at the reference view, and
    their means for the run.
    """
    features = efficientnet.features_in_batches(efficientnet.load_efficientnet(), views)
    each = [
        {"diversity": own, **agreement(seed_folder(run, seed), picture, settings)}
        for seed, own in zip(seeds, diversity.per_object_diversity(features).tolist(), strict=True)
    ]
    return Scores({name: float(np.mean([one[name] for one in each])) for name in each[0]}, each)


def agreement(folder: Path, picture: Picture, settings: Settings) -> dict[str, float]:
    """PSNR and intersection over union of masks, at the reference view, of a saved seed."""
    field = field_of(load_scene(folder))
    occupancy = occupancy_of(density_grid(field))
    camera = jax.tree.map(lambda x: x[None], reference.camera_of(picture.elevation, settings))
    rgb, opacity = field_views(field, occupancy, camera, SCORED_SIZE, settings.final_samples)
    background = PLAIN[settings.background]
    ours = rgb[0] + (1 - opacity[0][..., None]) * (background - GREY)
    rgb, mask = (reference.resized(part, opacity[0].shape) for part in (picture.rgb, picture.mask))
    return {
        "psnr_db": float(psnr(np.asarray(ours), np.asarray(rgb))),
        "mask_iou": float(iou(np.asarray(opacity[0]), np.asarray(mask))),
    }


def on_grey(picture: InputPicture, background: float) -> UInt8[np.ndarray, "s s 3"]:
    """The picture as results show objects."""
    return to_uint8(picture.rgb + (1 - picture.mask[..., None]) * (GREY - background))
