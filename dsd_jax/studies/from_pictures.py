"""Objects that a prior never saw, made from one picture each, beside what they are.

Every method and object is one file, OUT/<method>/<object>.npz; what is there is not made again.
Letters: n seeds, v views (the first is the picture's own), h w pixels, p points.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from dsd_jax.engine.task import Task, make_task
from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.export.tables import markdown, save_csv, shown
from dsd_jax.files import atomic_path, write_json
from dsd_jax.metrics import chamfer, judge, novel_views
from dsd_jax.metrics.features import Features, efficientnet_lite0
from dsd_jax.priors import Prior
from dsd_jax.recipe.input_picture import InputPicture
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.rendering.scene import GREY, PLAIN, WHITE
from dsd_jax.studies import batch, meshes

REFERENCE = "sds"
_BEHIND = judge.AZIMUTHS_DEG.index(180.0)
COLUMNS = {"reference_psnr": ".1f", "reference_iou": ".3f", "psnr_mean": ".1f", "psnr_best": ".1f",
           "iou_mean": ".3f", "iou_best": ".3f", "perceptual_mean": ".3f", "perceptual_best": ".3f",
           "chamfer_mean": ".4f", "chamfer_best": ".4f", "visible": ".3f", "hidden": ".3f",
           "hidden_over_visible": ".1f", "visible_of_sds": ".1f", "hidden_of_sds": ".1f",
           "seconds": ".0f"}  # fmt: skip
NOTE = """
Means over {count} held-out objects of {seeds} seeds each. Reference: at the picture's own view,
PSNR in dB on white and intersection over union of masks. The others: at the seven other views, the
mean seed and the best of the {seeds}; perceptual, the cosine distance of EfficientNet-Lite0's
features to the truth's; chamfer, the distance of the visible surfaces, the truth's longest side
being 1. Visible, hidden: mean cosine distance between seeds on the side that the picture shows and
behind, and over those of SDS. Seconds: all seeds of an object, compiling included, on {devices}.
"""

# Views of an object from the judge's azimuths, counted from the picture's, premultiplied alpha.
Truth = UInt8[np.ndarray, "8 h w 4"]
# `meshes.seen_points` of an object, turned as what is made from its picture is.
Shape = Float[np.ndarray, "p 3"]


class FromPictures(NamedTuple):
    """What is compared.

    Attributes:
        out: folder of the results.
        recipes: {method: recipe}.
        names: of the objects that are to be there, as their files are called.
        mesh: whether to keep points of the objects' meshes too.
        behind: whether the view from behind is given, too.
    """

    out: Path
    recipes: Mapping[str, Recipe]
    names: list[str]
    seeds: list[int]
    prior: Prior
    mesh: bool = True
    behind: bool = False


def result(study: FromPictures, method: str, name: str) -> Path:
    """The file of a method and object."""
    return study.out / method / f"{name}.npz"


def task_of(
    prior: Prior, views: Truth, recipe: Recipe, name: str, behind: bool = False,
    only_shapes: bool = False,
) -> Task:  # fmt: skip
    """The task of the first of an object's views and, with `behind`, of that from behind.

    `only_shapes` is as in `engine.task.make_task`. Raises ValueError as `engine.task.make_task`.
    """
    level = PLAIN.get(recipe.render.background, WHITE)

    def picture(index: int) -> InputPicture:
        rgba, at_deg = views[index], judge.AZIMUTHS_DEG[index]
        rgb, mask = over(rgba, level), rgba[..., 3] / np.float32(255)
        return InputPicture(rgb, mask, None, None, [], name, judge.ELEVATION_DEG, at_deg)

    others = (picture(_BEHIND),) if behind else ()
    told = picture(0)._replace(others=others)
    return make_task(prior, told, recipe, only_shapes=only_shapes)


def make(study: FromPictures, truth: Mapping[str, Truth]) -> None:
    """Make what is missing, the objects of a method together; says what it has made."""
    for method, recipe in study.recipes.items():
        missing = [name for name in study.names if not batch.is_kept(result(study, method, name))]
        if not missing:
            continue
        tasks = [task_of(study.prior, truth[name], recipe, name, study.behind) for name in missing]
        look = meshes.with_points if study.mesh else None
        made = batch.make_all(tasks, study.seeds, opacity=True, look=look)
        for name, objects in zip(missing, made, strict=True):
            with atomic_path(result(study, method, name)) as temporary:
                arrays = objects.arrays() | {"device": jax.devices()[0].device_kind}
                np.savez_compressed(temporary, **arrays)
            print(f"{method}: {name}: {objects.seconds:.0f} s", flush=True)


def report(study: FromPictures, truth: Mapping[str, Truth], shapes: Mapping[str, Shape]) -> str:
    """Judge all methods; writes the table and the pictures.

    Args:
        shapes: of the same objects as `truth`.

    Returns the table, in Markdown.
    """
    network, out, devices = efficientnet_lite0(), study.out, set()
    scores: dict[str, dict[str, Any]] = {method: {} for method in study.recipes}
    for name, rgba in truth.items():
        known = _seen(network, over(rgba, WHITE), rgba[..., 3])
        labels, columns = ["truth"], [known.rgb]
        for method, objects in scores.items():
            with np.load(result(study, method, name)) as file:
                found = dict(file)
            made = _seen(network, on_white(found["views"]), found["views"][..., 3])
            objects[name] = {"seconds": float(found["seconds"])}
            left = ~batch.lost_of(found)
            if left.any():
                rows = novel_views.Views(*(part[left] for part in made))
                objects[name] |= novel_views.of_object(rows, known, judge.AZIMUTHS_DEG)
                if "points" in found:
                    objects[name] |= chamfer.of_seeds(found["points"][left], shapes[name])
            devices.add(str(found["device"]))
            labels += [f"{method} {seed}" for seed in study.seeds]
            columns += list(made.rgb)
        rows = ["picture", *(f"{azimuth:g}" for azimuth in judge.AZIMUTHS_DEG[1:])]
        save_png(out / f"{name}.png", contact_sheet(np.stack(columns), labels, 96, rows))
    table = {method: novel_views.summary(objects.values()) for method, objects in scores.items()}
    if REFERENCE in table:
        for method, ratios in novel_views.compared(table, REFERENCE).items():
            table[method] |= ratios
    each = {method: row | {"objects": scores[method]} for method, row in table.items()}
    write_json(out / "scores.json", each)
    save_csv(out / "table.csv", table, COLUMNS, "method")
    note = NOTE.format(count=len(truth), seeds=len(study.seeds), devices=", ".join(sorted(devices)))
    columns = shown(COLUMNS, table, ("chamfer_mean", "chamfer_best"))
    text = markdown(table, columns, "method") + note
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(text, "utf-8")
    return text


def _seen(network: Features, rgb: np.ndarray, opacity: np.ndarray) -> novel_views.Views:
    """Pictures in [0, 1], their opacity in 0..255, and their features."""
    return novel_views.Views(rgb, opacity / np.float32(255), network(rgb))


def over(rgba: UInt8[np.ndarray, "*n h w 4"], background: float) -> Float[np.ndarray, "*n h w 3"]:
    """Premultiplied colours over a grey level, in [0, 1]."""
    rgb, opacity = np.split(rgba / np.float32(255), [3], axis=-1)
    return rgb + np.float32(background) * (1 - opacity)


def on_white(views: UInt8[np.ndarray, "n v h w 4"]) -> Float[np.ndarray, "n v h w 3"]:
    """Colours on grey with their opacity: colours on white, in [0, 1]."""
    rgb, opacity = np.split(views / np.float32(255), [3], axis=-1)
    return np.clip(rgb + (1 - opacity) * np.float32(WHITE - GREY), 0, 1)
