"""How far the objects of a picture agree with it, seen from its own side.

Letters: n seeds, h w pixels, s side of the picture.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import UInt8

from dsd_jax.export.field_grid import density_grid, field_of, field_views, occupancy_of
from dsd_jax.export.pictures import to_uint8
from dsd_jax.export.scenes import SavedScene
from dsd_jax.metrics import diversity, efficientnet
from dsd_jax.metrics.scores import Scores
from dsd_jax.recipe import reference
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.viewpoints import Reference
from dsd_jax.rendering.agreement import iou, psnr
from dsd_jax.rendering.scene import GREY, PLAIN

if TYPE_CHECKING:
    from dsd_jax.engine.objects import Objects

SCORED_SIZE = 128


def of_fields(
    fields: Sequence[SavedScene],
    picture: Reference,
    recipe: Recipe,
    views: UInt8[np.ndarray, "n 8 h w 3"],
) -> Scores:
    """Diversity between seeds, and each seed's agreement with the picture.

    Returns for each seed, beside "diversity", "psnr_db" and "mask_iou" at the picture's view, and
    their means for the run.
    """
    features = efficientnet.features_in_batches(efficientnet.load_efficientnet(), views)
    each = [
        {"diversity": own, **agreement(field, picture, recipe)}
        for field, own in zip(
            fields, diversity.per_object_diversity(features).tolist(), strict=True
        )
    ]
    return Scores({name: float(np.mean([one[name] for one in each])) for name in each[0]}, each)


def agreement(saved: SavedScene, picture: Reference, recipe: Recipe) -> dict[str, float]:
    """PSNR and intersection over union of masks, at the picture's view, of one object."""
    field = field_of(saved)
    occupancy = occupancy_of(density_grid(field))
    camera = reference.camera_of(picture.elevation, recipe.camera)
    camera = jax.tree.map(lambda x: x[None], camera)
    samples = recipe.results.final_samples
    rgb, opacity = field_views(field, occupancy, camera, SCORED_SIZE, samples)
    background = PLAIN[recipe.render.background]
    ours = rgb[0] + (1 - opacity[0][..., None]) * (background - GREY)
    rgb, mask = (reference.resized(part, opacity[0].shape) for part in (picture.rgb, picture.mask))
    return {
        "psnr_db": float(psnr(np.asarray(ours), np.asarray(rgb))),
        "mask_iou": float(iou(np.asarray(opacity[0]), np.asarray(mask))),
    }


def on_grey(objects: "Objects") -> UInt8[np.ndarray, "s s 3"]:
    """The picture that objects were made from, as results show objects."""
    picture = objects.about.reference
    assert picture is not None
    return shown_on_grey(picture.rgb, picture.mask, objects.recipe)


def shown_on_grey(rgb, mask, recipe: Recipe) -> UInt8[np.ndarray, "s s 3"]:
    """A picture [s, s, 3] over the recipe's plain background, over grey instead."""
    rgb, mask = np.asarray(rgb), np.asarray(mask)
    return to_uint8(rgb + (1 - mask[..., None]) * (GREY - PLAIN[recipe.render.background]))
