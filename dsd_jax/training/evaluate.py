"""Scores and sample sheets of an exported prior; `experiments/train_prior.py --evaluate`."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsd_jax.data import captions, pictures
from dsd_jax.data.objects import Objects
from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.files import write_json
from dsd_jax.metrics import judge, real_scores
from dsd_jax.metrics.bank import Bank, load_bank
from dsd_jax.metrics.diversity import diversity
from dsd_jax.metrics.efficientnet import features_in_batches, load_efficientnet
from dsd_jax.metrics.scores import texture
from dsd_jax.priors.stable_diffusion import Prior, load
from dsd_jax.training import autoencoder, prior_scores
from dsd_jax.training.sampling import AROUND, ELEVATION_DEG, Sampler

SEEDS = 8
LIMITED = 0.6  # share of the timesteps, counted from the clean end, that is guided at all
DIVERSE = ("house", "chair", "tree", "fish", "car")
PAINTED = ("car", "chair", "sofa", "house")


def run(folder: Path, data: Objects, out: Path, log: Callable[[str], None] = print) -> dict:
    """Score the prior in `folder`; writes `out`/scores.json and the sample sheets."""
    out.mkdir(parents=True, exist_ok=True)
    prior, bank = load(folder), load_bank()
    sampler = Sampler(prior)
    names = [name for name, _ in Counter(data.category).most_common(40) if name in bank.categories]
    detailed = prior_scores.most_detailed(bank, names)
    scores = {}
    for part in (
        lambda: reconstruction(prior, data),
        lambda: round_trip(prior, data, detailed),
        lambda: single_views(sampler, bank, names, out),
        lambda: guided_late(sampler),
        lambda: four_views(sampler, bank, detailed, out),
    ):
        found = part()
        scores |= found
        log(told(found))
    write_json(out / "scores.json", scores)
    return scores


def told(scores: dict[str, Any]) -> str:
    """All but the long ones, in a line."""
    return ", ".join(f"{name} {_short(value)}" for name, value in scores.items()
                     if not name.endswith("_per_category"))  # fmt: skip


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_short(own)}" for name, own in value.items()) + ")"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def reconstruction(prior: Prior, data: Objects, objects: int = 256) -> dict:
    """`autoencoder.Quality` on fresh views."""
    chosen = spread_out(np.arange(len(data)), objects)
    plan = pictures.plan_views(np.random.default_rng(12345), len(chosen), 1)
    rgba = pictures.render_views(data, chosen, plan, resolution=prior.image_size)[:, 0]
    vae = prior.networks.vae
    return autoencoder.quality(vae, prior.params["vae"], rgba)._asdict()


def round_trip(prior: Prior, data: Objects, categories: Sequence[str], count: int = 6) -> dict:
    """What the autoencoder keeps of the detail of real objects, `count` of each category."""
    chosen = [spread_out(np.flatnonzero(np.asarray(data.category) == c), count) for c in categories]
    indices = np.concatenate(chosen)
    plan = pictures.plan_around(AROUND, ELEVATION_DEG, len(indices))
    rgba = pictures.render_views(data, indices, plan, resolution=prior.image_size)
    ends = np.cumsum([len(own) for own in chosen])[:-1]
    parts = (np.split(views, ends) for views in prior_scores.round_trip(prior, rgba))
    kept = dict(zip(categories, map(prior_scores.detail_kept, *parts), strict=True))
    return {"detail_kept": prior_scores.mean(kept), "detail_kept_per_category": kept}


def spread_out(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of them, from the first to the last."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def prompted(sampler: Sampler, names: Iterable[str], seeds: int, *azimuths, **settings) -> dict:
    """{category: pictures [seeds, v, H, W, 3]} of the plainest prompts."""
    names = list(names)
    made = sampler([captions.with_article(name) for name in names], seeds, *azimuths, **settings)
    return dict(zip(names, made, strict=True))


def featured(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The features of each category's pictures."""
    found = features_in_batches(load_efficientnet(), np.stack(list(images.values())))
    return dict(zip(images, found, strict=True))


def spread(features: dict[str, np.ndarray], name: str) -> dict:
    """Diversity between the seeds of the five categories, and over that of real objects."""
    found = {own: diversity(features[own]) for own in DIVERSE if own in features}
    real = real_scores.load()["distance"]
    return {name: found, f"{name}_of_real": prior_scores.over(found, real)}


def single_views(sampler: Sampler, bank: Bank, names: list[str], out: Path) -> dict:
    """How right and how different samples of the largest categories are; a sheet of them."""
    images = prompted(sampler, names, SEEDS)
    sheet = np.stack([views[:, 0] for views in images.values()])
    save_png(out / "samples_40x8.png", contact_sheet(sheet, labels=None, tile=64))
    features = featured(images)
    return prior_scores.verdicts(bank, features) | spread(features, "diversity")


def guided_late(sampler: Sampler) -> dict:
    """Diversity where guidance leaves high noise alone."""
    images = prompted(sampler, DIVERSE, SEEDS, guidance_below=LIMITED)
    return spread(featured(images), "diversity_guided_late")


def four_views(sampler: Sampler, bank: Bank, detailed: list[str], out: Path) -> dict:
    """Directions, colour, diversity, detail of views made together; a sheet of the directed.

    Twice the seeds where the share of few things is counted.
    """
    counted = prompted(sampler, dict.fromkeys((*judge.DIRECTED, *PAINTED)), 2 * SEEDS, AROUND)
    others = [name for name in dict.fromkeys((*DIVERSE, *detailed)) if name not in counted]
    images = counted | prompted(sampler, others, SEEDS, AROUND)
    rows = [images[name][:SEEDS].swapaxes(0, 1) for name in judge.DIRECTED]
    sheet = np.concatenate(rows)  # [4 categories x 4 views, seeds, ...]
    save_png(out / "samples_views.png", contact_sheet(sheet.swapaxes(0, 1), labels=None, tile=64))
    features = featured(counted) | featured({name: images[name] for name in others})
    direction = {
        name: judge.direction_score(bank, name, features[name], AROUND)
        for name in judge.DIRECTED
        if judge.has_front(bank, name)
    }
    grey = {name: prior_scores.grey_share(images[name]) for name in PAINTED}
    textures = {name: texture(bank, name, images[name]) for name in detailed}
    detail = {name: own["grain"] for name, own in textures.items()}
    return {
        "direction": direction,
        "direction_of_real": prior_scores.over(direction, real_scores.load()["direction"]),
        "grey": prior_scores.mean(grey),
        "grey_per_category": grey,
        **spread(features, "diversity_four_views"),
        "detail": prior_scores.mean(detail),
        "detail_per_category": detail,
        "holes_per_category": {name: own["holes"] for name, own in textures.items()},
    }
