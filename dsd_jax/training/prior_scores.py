"""What is asked of a prior's own pictures: right, varied, detailed, coloured as real objects are.

Letters: n objects (or seeds), v views, h w pixels, f features of `metrics.efficientnet`. A score of
several categories is {category: value}, None where there is nothing to be seen.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Num, UInt8

from dsd_jax.metrics import grain, judge
from dsd_jax.metrics.averages import means
from dsd_jax.metrics.bank import Bank
from dsd_jax.metrics.diversity import cosine_similarity
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.training.views import composite

LEAST_SATURATION = 0.1  # what is less is grey


def mean(scores: Mapping[str, float | None]) -> float | None:
    """Over the categories that have the score."""
    return means({"score": value} for value in scores.values()).get("score")


def over(
    scores: Mapping[str, float | None], real: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Each score as a multiple of real objects', of the categories that are known of both."""
    pairs = {name: (value, real[name]) for name, value in scores.items() if name in real}
    return {name: None if a is None or not b else a / b for name, (a, b) in pairs.items()}


def right_in_five(
    bank: Bank, category: str, view_features: Float[np.ndarray, "n v f"]
) -> Bool[np.ndarray, "n"]:
    """True where `category` is among those of the five nearest objects of the bank."""
    return np.array([category in row for row in judge.neighbours(bank, view_features)])


def real_right_in_five(bank: Bank, categories: Sequence[str]) -> dict[str, float]:
    """The share of the bank's own objects that `right_in_five` finds, each left out in turn."""
    cosines = cosine_similarity(bank.features, bank.features)
    np.fill_diagonal(cosines, -np.inf)
    five = np.argsort(-cosines, axis=1, kind="stable")[:, : judge.NEIGHBOURS]
    right = (bank.category[five] == bank.category[:, None]).any(1)
    members = {name: bank.category == bank.categories.index(name) for name in categories}
    return {name: float(right[own].mean()) for name, own in members.items()}


def verdicts(bank: Bank, features: Mapping[str, Float[np.ndarray, "n v f"]]) -> dict[str, Any]:
    """How often the judge finds the category right that was asked for: {category: features}.

    Returns:
        right: share with the category among the five nearest, mean of categories; right_of_real:
            the same of real objects.
        accepted: share that the judge accepts, see `metrics.judge`.
        Of each also .._per_category, and of what was made the .._least of them, with its name.
    """
    right = {name: float(right_in_five(bank, name, own).mean()) for name, own in features.items()}
    accepted = {
        name: float(judge.verdict(bank, name, own).accepted.mean())
        for name, own in features.items()
    }
    real = real_right_in_five(bank, list(features))
    return {
        **_summary("right", right),
        "right_of_real": mean(real),
        "right_of_real_per_category": real,
        **_summary("accepted", accepted),
    }


def _summary(score: str, of_category: dict[str, float]) -> dict[str, Any]:
    least = min(of_category, key=of_category.__getitem__)
    return {
        score: mean(of_category),
        f"{score}_least": {least: of_category[least]},
        f"{score}_per_category": of_category,
    }


def most_detailed(bank: Bank, categories: Sequence[str], count: int = 10) -> list[str]:
    """Those with the largest grain of real objects, largest first."""
    known = {name: float(bank.grain[bank.categories.index(name)]) for name in categories}
    known = {name: value for name, value in known.items() if np.isfinite(value)}
    return sorted(known, key=known.__getitem__, reverse=True)[:count]


def round_trip(
    prior: Prior, rgba: UInt8[np.ndarray, "n v h w 4"], batch: int = 16
) -> tuple[Float[np.ndarray, "n v h w 3"], Float[np.ndarray, "n v h w 3"]]:
    """Premultiplied pictures on grey, and as they come back from the prior's autoencoder."""

    @jax.jit
    def through(params, rgba):
        x = composite(rgba, opacity=prior.sees_opacity)
        encode, decode = partial(prior.encode, params), partial(prior.decode, params)
        return x[..., :3], jax.vmap(lambda x: decode(encode(x)))(x)[..., :3]

    flat = rgba.reshape(-1, *rgba.shape[2:])
    filled = np.resize(flat, (-(-len(flat) // batch) * batch, *flat.shape[1:]))
    parts = [through(prior.params, filled[i : i + batch]) for i in range(0, len(filled), batch)]
    before, after = (np.concatenate(rows)[: len(flat)] for rows in zip(*parts, strict=True))
    return before.reshape(*rgba.shape[:-1], 3), after.reshape(*rgba.shape[:-1], 3)


def detail_kept(
    before: Float[np.ndarray, "n v h w 3"], after: Float[np.ndarray, "n v h w 3"]
) -> float | None:
    """The grain of pictures after something was done to them, over theirs before."""
    real = grain.of_objects(grain.at_scale(before))["grain"]
    return None if not real else grain.beside_real(after, real, np.nan)["grain"]


def saturation(views: Num[np.ndarray, "v h w 3"]) -> float:
    """Mean HSV saturation, (max - min) / max of the channels, of the silhouettes; 0 without one."""
    views = views / 255.0 if views.dtype == np.uint8 else views
    colours = views[grain.silhouette(views)]
    if not len(colours):
        return 0.0
    largest = colours.max(-1)
    return float(np.mean((largest - colours.min(-1)) / np.maximum(largest, 1e-6)))


def grey_share(views: Num[np.ndarray, "n v h w 3"]) -> float:
    """The share of objects whose `saturation`, all views together, is less than 0.1."""
    return float(np.mean([saturation(own) < LEAST_SATURATION for own in views]))
