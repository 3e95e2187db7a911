"""All scores of the objects or pictures that were made for one prompt, ready for a table.

Letters: n seeds, v views, h w pixels, f features of EfficientNet-Lite0. Pictures are uint8 or
floats in [0, 1]; a distance, diversity or similarity without another name is one of those features.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num, UInt8

from dsd_jax.metrics import efficientnet, grain, judge
from dsd_jax.metrics.bank import Bank, load_bank
from dsd_jax.metrics.distributions import coverage, frechet_distance, kernel_distance
from dsd_jax.metrics.diversity import (
    cosine_similarity,
    diversity,
    object_features,
    per_object_diversity,
    vendi_score,
)
from dsd_jax.metrics.features import pixels

NEIGHBOURS = 3
OF_SEED = ("percentile", "vote", "rival", "whole", "framed", "neighbours")


class Scores(NamedTuple):
    """What metrics.json says of n seeds' views.

    Attributes:
        run: of all seeds together.
        seeds: of each seed.
    """

    run: dict[str, Any]
    seeds: list[dict[str, Any]]


def of_prompt(prompt: str, views: UInt8[np.ndarray, "n v h w 3"]) -> Scores:
    """Diversity between seeds, fidelity to the prompt as far as the judge knows it, and texture.

    Returns for each seed "diversity", the mean cosine distance to the others, what
    `judge.prompt_fidelity` says of it, "grain" and "holes"; for the run the mean diversity,
    "fidelity" (where there is no judge, with the reason), "grain" and "holes", see `texture`.
    """
    features = efficientnet.features_in_batches(efficientnet.load_efficientnet(), views)
    try:
        bank = load_bank()
        fidelity = judge.prompt_fidelity(bank, prompt, features, views)
    except FileNotFoundError as error:
        bank, fidelity = None, {"reason": str(error)}
    category = fidelity.get("category")
    run = {
        "diversity": diversity(features),
        "fidelity": {k: fidelity.get(k) for k in ("category", "accepted", "fidelity", "reason")},
        **texture(bank, category, views),
    }
    told = {"accepted": fidelity.get("per_seed")} | {k: fidelity.get(k) for k in OF_SEED}
    seeds = [
        {"diversity": own}
        | {name: values and values[i] for name, values in told.items()}
        | texture(bank, category, views[i : i + 1])
        for i, own in enumerate(per_object_diversity(features).tolist())
    ]
    return Scores(run, seeds)


def texture(
    bank: Bank | None, category: str | None, views: Num[np.ndarray, "n v h w 3"]
) -> dict[str, float | None]:
    """ "grain", a multiple of that of real objects, and "holes", beyond theirs: of `metrics.grain`.

    None where the category is None, or nothing is to be seen.
    """
    if bank is None or category is None:
        return {"grain": None, "holes": None}
    index = bank.categories.index(category)
    return grain.beside_real(views, float(bank.grain[index]), float(bank.holes[index]))


def of_objects(
    bank: Bank,
    prompt: str,
    features: Float[np.ndarray, "n v f"],
    views: Num[np.ndarray, "n v h w 3"],
) -> dict[str, Any]:
    """Diversity between the seeds and fidelity to the prompt; None where the judge cannot tell.

    Returns:
        diversity, vendi: see `metrics.diversity`.
        accepted, fidelity: share of seeds that the judge accepts, and their mean percentile.
        grain, holes: see `texture`.
        similarity: mean cosine to the nearest real object of that category.
        category: what the prompt asks for.
    """
    verdict = judge.prompt_fidelity(bank, prompt, features, views)
    category = verdict["category"]
    near = None if category is None else float(judge.similarity(bank, category, features).mean())
    return {"diversity": diversity(features), "vendi": vendi_score(features),
            "accepted": verdict["accepted"], "fidelity": verdict["fidelity"], "similarity": near,
            **texture(bank, category, views), "category": category}  # fmt: skip


def against(
    features: Float[np.ndarray, "n v f"], reference: Float[np.ndarray, "n v f"]
) -> dict[str, float]:
    """The same seeds from two sources, as two sets and pair by pair; at least two seeds.

    Returns:
        own, other, nearest_own: see `by_pairs`, of cosine distances.
        frechet, kernel, precision, recall, density, coverage: see `metrics.distributions`;
            "kernel" leaves out pairs of one seed, the last four look at 3 neighbours, or as many as
            there are.
    """
    made, known = object_features(features), object_features(reference)
    covered = coverage(made, known, k=min(NEIGHBOURS, len(made) - 1))
    return {
        **by_pairs(1 - cosine_similarity(made, known)),
        "frechet": float(frechet_distance(made, known)),
        "kernel": float(kernel_distance(made, known, paired=True)),
        **{name: float(value) for name, value in covered._asdict().items()},
    }


def against_pixels(
    pictures: Num[np.ndarray, "n v h w 3"], reference: Num[np.ndarray, "n v h w 3"]
) -> dict[str, float]:
    """`by_pairs` of root mean square differences of colours in [0, 1], names ending in _rms."""
    made, known = (pixels(p).reshape(len(p), -1) for p in (pictures, reference))
    apart = np.stack([np.sqrt(np.square(row - known).mean(1)) for row in made])
    return {f"{name}_rms": value for name, value in by_pairs(apart).items()}


def by_pairs(distance: Float[np.ndarray, "n n"]) -> dict[str, float]:
    """What distances of n things (rows) to n references (columns) say about the pairs.

    Returns:
        own: mean distance to the own reference.
        other: mean distance to those of the others.
        nearest_own: share whose own reference is nearer than all others.
    """
    n, own = len(distance), np.diagonal(distance)
    others = np.where(np.eye(n, dtype=bool), np.inf, distance)
    return {
        "own": float(own.mean()),
        "other": float((distance.sum() - own.sum()) / (n * n - n)),
        "nearest_own": float(np.mean(own < others.min(1))),
    }
