"""The methods on the same prompts and seeds, in 2D or 3D, beside the prior's own samples.

Every method and prompt is one file, OUT/<method>/<prompt>.npz; what is there is not made again.
Letters: n seeds, v views, H W pixels.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dsd_jax.engine.task import make_task
from dsd_jax.export.pictures import contact_sheet, save_png, to_uint8
from dsd_jax.files import atomic_path, file_name, shortened, slug
from dsd_jax.metrics import clip, judge
from dsd_jax.metrics.bank import load_bank
from dsd_jax.priors import Prior
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.studies import batch, compare_scores, evaluations, images2d
from dsd_jax.studies.evaluations import Run

DDIM = "ddim"
AZIMUTHS_DEG = (45.0, 135.0, 225.0, 315.0)
# Those of experiments/prompts/study.txt: the judge knows all of them.
PROMPTS = ("a house", "a chair", "a tree", "a fish", "a car", "a sofa", "a lamp", "a cactus")


class Entry(NamedTuple):
    """A row of the table.

    Attributes:
        name: as the user wrote it, for instance dsd-star@25.
        kind: `DDIM`, or one of `images2d.NAMES`, in 3D of `METHODS`.
    """

    name: str
    kind: str
    recipe: Recipe


class Comparison(NamedTuple):
    """What is compared.

    Attributes:
        out: folder of the results.
        entries: DDIM's is among them.
        in_3d: objects, or pictures.
        space, azimuth, elevation: of pictures, see `free.ImageTask`.
        mesh: whether to look at the objects' meshes too.
    """

    out: Path
    entries: list[Entry]
    prompts: list[str]
    seeds: list[int]
    prior: Prior
    in_3d: bool
    space: str = "latents"
    azimuth: float = 0.0
    elevation: float = 0.0
    mesh: bool = True


def make(study: Comparison) -> None:
    """Make what is missing; says what it has made."""
    make_missing = _make_objects if study.in_3d else _make_pictures
    for entry in study.entries:
        missing = [p for p in study.prompts if not batch.is_kept(result(study.out, entry, p))]
        if missing:
            make_missing(study, entry, missing)


def any_lost(study: Comparison) -> bool:
    """Whether a seed of a result that is there was lost."""
    paths = [result(study.out, entry, p) for entry in study.entries for p in study.prompts]
    return any(batch.lost_of(np.load(path)).any() for path in paths if path.exists())


def result(out: Path, entry: Entry, prompt: str) -> Path:
    """The file of a method and prompt."""
    return out / slug(entry.name) / f"{file_name(prompt)}.npz"


def _save(out: Path, entry: Entry, prompt: str, seconds: float, **arrays: Any) -> None:
    """Keep a result and say so."""
    arrays |= {"seconds": seconds, "device": jax.devices()[0].device_kind}
    with atomic_path(result(out, entry, prompt)) as temporary:
        np.savez_compressed(temporary, **arrays)
    print(f"{entry.name}: {shortened(prompt, 80)}: {seconds:.0f} s", flush=True)


def _way_of(kind: str, seeds: Sequence[int], *on_step: images2d.OnStep) -> Run:
    """Image task -> pictures [n, H, W, 3] of a row of the table in 2D."""
    if kind == DDIM:
        return lambda image: images2d.ddim(image, seeds, image.recipe.steps)
    way = images2d.way_of(kind)
    return lambda image: way(image, seeds, *on_step).images


def _evaluations(study: Comparison, entry: Entry) -> int:
    """Evaluations of one seed."""
    in_3d = study.in_3d and entry.kind != DDIM
    counted = evaluations.in_3d if in_3d else evaluations.count
    task = make_task(study.prior, study.prompts[0], entry.recipe)
    return counted(task, _way_of(entry.kind, study.seeds[:1]))


def _make_pictures(study: Comparison, entry: Entry, prompts: list[str]) -> None:
    """The pictures of a method in 2D, prompt by prompt."""
    place, count = (study.azimuth, study.elevation), _evaluations(study, entry)
    for prompt in prompts:
        began = time.monotonic()
        image = images2d.make_task(study.prior, prompt, entry.recipe, *place, study.space)
        naming = batch.Naming(prompt, study.seeds, image.recipe.steps)
        pictures = np.asarray(_way_of(entry.kind, study.seeds, naming)(image))
        broken = ~images2d.finite(pictures)
        naming.say(broken, "its picture is not finite")
        arrays = {"views": to_uint8(pictures)[:, None], "lost": broken}
        seconds = time.monotonic() - began
        _save(study.out, entry, prompt, seconds, evaluations=count, **arrays)


def _make_objects(study: Comparison, entry: Entry, prompts: list[str]) -> None:
    """The objects of a method, prompts together; of DDIM four pictures around each object."""
    prior, recipe, seeds = study.prior, entry.recipe, study.seeds
    count = _evaluations(study, entry)
    if entry.kind == DDIM:
        count *= len(AZIMUTHS_DEG)
        for prompt in prompts:
            began, place = time.monotonic(), (AZIMUTHS_DEG, judge.ELEVATION_DEG)
            views = batch.sample_views(prior, prompt, recipe, seeds, recipe.steps, *place)
            seconds = time.monotonic() - began
            _save(study.out, entry, prompt, seconds, views=views, evaluations=count)
        return
    made = batch.make_objects(prior, prompts, recipe, seeds, study.mesh)
    for prompt, objects in zip(prompts, made, strict=True):
        _save(study.out, entry, prompt, evaluations=count, **objects.arrays())


def report(study: Comparison, encoders: clip.Clip | None = None) -> str:
    """Judge all rows; writes the table, the plot and the pictures.

    Args:
        encoders: for the similarity to the prompt.

    Returns the table, in Markdown.
    """
    found = {entry.name: {p: dict(np.load(result(study.out, entry, p))) for p in study.prompts}
             for entry in study.entries}  # fmt: skip
    rows = compare_scores.judged(found, DDIM, load_bank(), encoders)
    table = compare_scores.write(study.out, rows, DDIM, len(study.seeds), _devices(found))
    _draw(study, found)
    return table


def _devices(found: Mapping[str, compare_scores.Results]) -> str:
    """What the results were made on."""
    devices = {str(arrays["device"]) for each in found.values() for arrays in each.values()}
    return ", ".join(sorted(devices))


def _draw(study: Comparison, found: Mapping[str, compare_scores.Results]) -> None:
    """A grid of methods x seeds for each prompt; in 3D four views of each object too."""
    labels = [f"seed {seed}" for seed in study.seeds]
    for prompt in study.prompts:
        shown = found[DDIM][prompt]["views"]
        four = {name: compare_scores.same_views(each[prompt]["views"], shown)
                for name, each in found.items()}  # fmt: skip
        grid = np.stack([views[:, 0] for views in four.values()], 1)
        sheet = contact_sheet(grid, labels, tile=96, rows=list(four))
        save_png(study.out / f"grid_{file_name(prompt)}.png", sheet)
        for entry in study.entries if study.in_3d else []:
            sheet = contact_sheet(four[entry.name], labels, tile=96)
            save_png(result(study.out, entry, prompt).with_suffix(".png"), sheet)
