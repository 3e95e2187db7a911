"""Ablation of a recipe: every variant of `variants` for the same prompts and seeds.

Every variant and prompt is one file, OUT/<variant>/<prompt>.npz, of what `batch` made; what is
there is not made again. Variants that come to the same recipe share their files.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.export.tables import markdown, shown
from dsd_jax.files import atomic_path, file_name, shortened, slug, write_json
from dsd_jax.metrics import bank as banks
from dsd_jax.metrics import judge, scores
from dsd_jax.metrics.averages import means
from dsd_jax.metrics.efficientnet import features_in_batches, load_efficientnet
from dsd_jax.priors import Prior
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.studies import meshes
from dsd_jax.studies.batch import is_kept, lost_of, make_objects
from dsd_jax.studies.variants import VARIANTS, recipe_of

COLUMNS = {"diversity": ".2f", "accepted": ".0%", "fidelity": ".0%", "direction": ".2f",
           "one_front": ".2f", "grain": ".2f", "holes": ".1%", "floaters": ".1%",
           **meshes.COLUMNS, "seconds": ".0f", "lost": ".0f"}  # fmt: skip


class Ablation(NamedTuple):
    """What is compared.

    Attributes:
        out: folder of the results.
        recipe: what the variants change.
        mesh: whether to look at the objects' meshes too.
    """

    out: Path
    recipe: Recipe
    prompts: tuple[str, ...]
    seeds: list[int]
    prior: Prior
    mesh: bool = True


def result(study: Ablation, name: str, prompt: str) -> Path:
    """The file of one variant and prompt; variants that are alike share it."""
    wanted = recipe_of(name, study.recipe)
    first = next(other for other in VARIANTS if recipe_of(other, study.recipe) == wanted)
    return study.out / slug(first) / f"{file_name(prompt)}.npz"


def any_lost(study: Ablation, names: Iterable[str]) -> bool:
    """Whether a seed of these variants was lost."""
    paths = [result(study, name, prompt) for name in names for prompt in study.prompts]
    return any(lost_of(np.load(path)).any() for path in paths if path.exists())


def make(study: Ablation, names: Iterable[str]) -> None:
    """Optimise these variants for the prompts that lack them; says what it has made."""
    for name in names:
        missing = [prompt for prompt in study.prompts if not is_kept(result(study, name, prompt))]
        if not missing:
            continue
        recipe = recipe_of(name, study.recipe)
        made = make_objects(study.prior, missing, recipe, study.seeds, study.mesh)
        for prompt, objects in zip(missing, made, strict=True):
            with atomic_path(result(study, name, prompt)) as temporary:
                np.savez_compressed(temporary, **objects.arrays())
            print(f"{name}: {shortened(prompt, 80)}: {objects.seconds:.0f} s", flush=True)


def report(study: Ablation) -> str:
    """Judge every variant that is complete; writes scores.json, table.md and contact sheets.

    Returns the table, in Markdown.
    """
    network, rows = load_efficientnet(), {}
    known = banks.load_bank(), banks.load_bank(name="clay")
    for name in VARIANTS:
        paths = [result(study, name, prompt) for prompt in study.prompts]
        if all(path.exists() for path in paths):
            found = [dict(np.load(path)) for path in paths]
            rows[name] = judged(study.prompts, found, network, *known)
            sheets = [contact_sheet(f["views"][:, [1, 4, 6]], tile=96) for f in found]
            save_png(paths[0].with_name("seeds.png"), np.concatenate(sheets))
    write_json(study.out / "scores.json", rows)
    table = markdown(rows, shown(COLUMNS, rows, meshes.COLUMNS), "variant")
    with atomic_path(study.out / "table.md") as temporary:
        temporary.write_text(table, "utf-8")
    return table


def judged(prompts, found, network, bank, clay) -> dict[str, Any]:
    """Mean scores over prompts, and each prompt's own under "prompts"; by two banks."""
    each = {}
    for prompt, arrays in zip(prompts, found, strict=True):
        left, seconds = ~lost_of(arrays), {"seconds": float(arrays["seconds"])}
        if not left.any():
            each[prompt] = seconds | {"lost": len(left)}
            continue
        views = arrays["views"][left]
        features = features_in_batches(network, views)
        row: dict[str, Any] = scores.of_objects(bank, prompt, features, views) | seconds
        row |= {"floaters": float(np.median(arrays["floaters"][left])), "lost": int((~left).sum())}
        category = row.pop("category")
        row |= meshes.scores(arrays, left, category, clay)
        if category in judge.DIRECTED:
            known = bank, category, features, judge.AZIMUTHS_DEG
            row["direction"] = judge.direction_score(*known)
            row["one_front"] = judge.one_front_score(*known)
        each[prompt] = row
    lost = sum(row["lost"] for row in each.values())
    return means(each.values()) | {"lost": lost, "prompts": each}
