"""Scores of several methods on the same prompts and seeds, beside those of a reference.

Letters: n seeds, v views. A result is what `compare` keeps of a method and prompt:
{"views" [n, v, h, w, 3], "seconds", "evaluations" and perhaps "floaters" [n], "lost" [n] and those
of `meshes.looked_at`}.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dsd_jax.export.plots import save_scatter
from dsd_jax.export.tables import markdown, save_csv, shown
from dsd_jax.files import atomic_path, write_json
from dsd_jax.metrics import clip, scores
from dsd_jax.metrics.averages import means
from dsd_jax.metrics.bank import Bank, load_bank
from dsd_jax.metrics.features import efficientnet_lite0
from dsd_jax.studies import meshes
from dsd_jax.studies.batch import lost_of

COLUMNS = {"diversity": ".3f", "of_ddim": ".2f", "accepted": ".0%", "fidelity": ".0%",
           "similarity": ".3f", "grain": ".2f", "holes": ".1%", **meshes.COLUMNS, "clip": ".3f",
           "own_rms": ".3f", "other_rms": ".3f", "nearest_own_rms": ".0%", "nearest_own": ".0%",
           "frechet": ".2f", "kernel": ".4f", "evaluations": ",.0f", "seconds": ".0f",
           "lost": "d"}  # fmt: skip
NOTE = """
Means over {prompts} prompts of {seeds} seeds each. Diversity: mean cosine distance between seeds,
and over that of DDIM's samples. Accepted: the share that the judge takes for what was asked.
Fidelity: the share of real objects of the category that are less alike to their nearest;
similarity: the cosine to the nearest of them. Grain: over that of real objects; holes: beyond
theirs. Distance to DDIM's samples of the same seed (own) and of the others (other): root mean
square of colours; and the share nearest to its own, by colours (rms) and by features. Frechet and
kernel: distance to the set of DDIM's samples. Features are EfficientNet-Lite0's. Evaluations:
pictures through the UNet, a seed. Seconds: all seeds of a prompt, compiling included, the median of
prompts, on {devices}. Lost: seeds that diverged or came to nothing, which no score counts.
"""
MESHES_NOTE = "Of meshes, in 3D. " + meshes.NOTE + "\n"

Results = Mapping[str, Mapping[str, np.ndarray]]


def judged(
    found: Mapping[str, Results], reference: str, bank: Bank, encoders: clip.Clip | None = None
) -> dict[str, dict[str, Any]]:
    """{method: mean scores over prompts, and each prompt's own under "prompts"}.

    Args:
        found: {method: {prompt: result}}, with the same prompts and seeds for all methods.
        reference: the method with which the others are compared.
        encoders: adds their similarity to the prompt, "clip".

    "of_<reference>" is the diversity over that of the reference.
    """
    network, clay = efficientnet_lite0(), load_bank(name="clay")

    def features(results: Results):
        return {prompt: network(arrays["views"]) for prompt, arrays in results.items()}

    base, known, rows = found[reference], features(found[reference]), {}
    for name, results in found.items():
        seen = known if name == reference else features(results)
        prompts = {}
        for prompt, own in results.items():
            left, views = ~lost_of(own), own["views"]
            row = prompts[prompt] = _counts(own)
            if not left.any():
                continue
            told = scores.of_objects(bank, prompt, seen[prompt][left], views[left])
            row |= told | meshes.scores(own, left, told["category"], clay)
            if encoders:
                similar = clip.prompt_similarity(encoders, prompt, views[left])
                row["clip"] = float(similar.mean())
            left &= ~lost_of(base[prompt])
            if name != reference and left.sum() > 1:
                shown, ours = known[prompt][left], base[prompt]["views"][left]
                row |= scores.against(same_views(seen[prompt][left], shown), shown)
                row |= scores.against_pixels(same_views(views[left], ours), ours)
        numbers = [{k: v for k, v in row.items() if k != "category"} for row in prompts.values()]
        rows[name] = means(numbers) | {"prompts": prompts}
        rows[name] |= dict.fromkeys({"diversity", "accepted", "similarity"} - {*rows[name]})
        rows[name]["lost"] = sum(int(lost_of(own).sum()) for own in results.values())
        rows[name]["seconds"] = float(np.median([row["seconds"] for row in numbers]))
    for row in rows.values():
        least = rows[reference]["diversity"]
        told = least and row["diversity"] is not None
        row[f"of_{reference}"] = row["diversity"] / least if told else None
    return rows


def _counts(arrays: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """What a result says of itself; None where it could not say."""
    values = {name: float(arrays[name]) for name in ("seconds", "evaluations")}
    if "floaters" in arrays and not lost_of(arrays).all():
        values["floaters"] = float(np.median(arrays["floaters"][~lost_of(arrays)]))
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def write(
    folder: Path, rows: Mapping[str, Mapping[str, Any]], reference: str, seeds: int, devices: str
) -> str:
    """Write what `judged` found: scores.json, table.csv, table.md, and plot.png if any was judged.

    Args:
        rows: the reference's among them.
        seeds: how many there are of each prompt.
        devices: what the results were made on.

    Returns the table, in Markdown.
    """
    write_json(folder / "scores.json", rows)
    numbers = dict.fromkeys(name for row in rows.values() for name in row if name != "prompts")
    save_csv(folder / "table.csv", rows, numbers, "method")
    columns = shown(COLUMNS, rows, {"clip", *meshes.COLUMNS})
    if not any(row.get("lost") for row in rows.values()):
        del columns["lost"]
    prompts = len(rows[reference]["prompts"])
    note = NOTE.format(prompts=prompts, seeds=seeds, devices=devices)
    note += MESHES_NOTE if meshes.COLUMNS.keys() <= columns.keys() else ""
    table = markdown(rows, columns, "method") + note
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text(table, "utf-8")
    labels = {"accepted": "fidelity: accepted share", "similarity": "fidelity: similarity"}
    panels = {label: {name: (row["diversity"], row[key]) for name, row in rows.items()}
              for key, label in labels.items() if rows[reference][key] is not None}  # fmt: skip
    if panels:
        save_scatter(folder / "plot.png", panels, "diversity")
    return table


def same_views(own: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Of [n, v, ...] the views that the reference shows: all, or the odd ones of twice as many."""
    return own if own.shape[1] == reference.shape[1] else own[:, 1::2]
