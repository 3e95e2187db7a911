"""Build the judge's bank of real objects, and print what real objects score.

    python experiments/tools/build_judge_bank.py --objects ../shared/toybox/objects.npz

Every object is rendered from 8 sides (elevation 20 degrees, azimuths 0, 45, ... 315, 128 x 128, on
grey 0.8, a light near each camera), its features computed, near-duplicates removed, the bank
written to dsd_jax/assets/judge/bank.safetensors and the scores of real objects (each left out in
turn) to real_scores.json beside it. Objects without a colour of their own count for no direction:
all white, they differ from the others more than a front differs from a back. `--cache FILE.npz`
keeps the features, so that a second run with other settings renders nothing.

Time: about 0.3 s an object on 2 CPU cores with --supersample 1; use a GPU for all 2,704.
"""

import dataclasses
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import tyro

from dsd_jax.data.objects import Objects, load_objects
from dsd_jax.data.pictures import ViewPlan, plan_lights, render_batches
from dsd_jax.files import atomic_path, write_json
from dsd_jax.metrics import bank as banks
from dsd_jax.metrics import judge, real_scores
from dsd_jax.metrics.diversity import object_features
from dsd_jax.metrics.efficientnet import FEATURES, features_in_batches, load_efficientnet

# Measured when the scores were defined: four views, each object left out in turn.
EXPECTED = {
    "accepted": {"mean": 0.88, "house": 0.95, "chair": 0.91, "tree": 0.98, "fish": 0.98,
                 "car": 1.00, "lamp": 0.71, "book": 0.65},
    "direction": {"car": 0.87, "chair": 0.89, "sofa": 0.87, "fish": 0.82},
    "one_front": {"car": 0.76, "chair": 0.91, "sofa": 1.00, "fish": 0.93},
    "distance": {"house": 0.46, "chair": 0.44, "tree": 0.52, "fish": 0.40, "car": 0.32},
}  # fmt: skip
SIZE_LIMIT = 2 * 2**20


@dataclasses.dataclass
class Settings:
    """What to build the bank from, and where to put it."""

    objects: Path
    """objects.npz"""
    out: Path = Path("dsd_jax/assets/judge/bank.safetensors")
    """file to write"""
    cache: Path | None = None
    """file that keeps the features of all views"""
    threshold: float = 0.95
    """objects whose cosine with an earlier one exceeds this are near-duplicates"""
    dims: int = 256
    """numbers per object in the bank"""
    batch: int = 8
    """objects rendered at once"""
    supersample: int = 2
    """samples per pixel and axis"""
    categories: tuple[str, ...] = ()
    """only these categories (for a quick check)"""
    limit: int = 0
    """at most this many objects of a category, those with the fewest triangles; 0: all"""
    seed: int = 0
    """of the lights"""


def choose(objects: Objects, categories: tuple[str, ...], limit: int) -> np.ndarray:
    """Indices of the objects asked for, in the file's order."""
    seen: Counter = Counter()
    chosen = []
    for i in np.argsort(objects.num_faces, kind="stable"):
        name = objects.category[i]
        if (not categories or name in categories) and not (limit and seen[name] >= limit):
            seen[name] += 1
            chosen.append(i)
    return np.sort(np.array(chosen, int))


def judge_views(n: int, seed: int) -> ViewPlan:
    """The 8 views of each of n objects, every view with a light of its own near the camera."""
    azimuth = np.tile(np.radians(np.asarray(judge.AZIMUTHS_DEG, np.float32)), (n, 1))
    elevation = np.full_like(azimuth, np.radians(judge.ELEVATION_DEG))
    lights = plan_lights(np.random.default_rng(seed), azimuth)
    lights = type(lights)(*(np.asarray(leaf, np.float32) for leaf in lights))
    return ViewPlan(azimuth, elevation, lights)


def on_grey(rgba: np.ndarray) -> np.ndarray:
    """Premultiplied uint8 [..., 4] -> float32 [..., 3] on the judge's background."""
    rgba = rgba.astype(np.float32) / 255
    return rgba[..., :3] + (1 - rgba[..., 3:]) * judge.BACKGROUND


def view_features(objects: Objects, indices: np.ndarray, settings: Settings) -> np.ndarray:
    """Features [n, 8, 1280] of the views of all objects, with progress on stderr."""
    network = load_efficientnet()
    result = np.empty((len(indices), len(judge.AZIMUTHS_DEG), FEATURES), np.float32)
    plan = judge_views(len(indices), settings.seed)
    done = 0
    for rows, rgba in render_batches(
        objects, indices, plan, resolution=judge.SIZE, batch=settings.batch,
        supersample=settings.supersample,
    ):  # fmt: skip
        result[rows] = features_in_batches(network, on_grey(np.asarray(rgba)))
        done += len(rows)
        print(f"\r{done} of {len(indices)} objects", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return result


def cached_features(objects: Objects, indices: np.ndarray, settings: Settings) -> np.ndarray:
    """`view_features`, read from the cache when it holds exactly these objects."""
    if settings.cache and settings.cache.is_file():
        with np.load(settings.cache) as file:
            if np.array_equal(file["indices"], indices):
                return file["features"].astype(np.float32)
        print(f"{settings.cache} holds other objects: rendering anew", file=sys.stderr)
    features = view_features(objects, indices, settings)
    if settings.cache:
        with atomic_path(settings.cache) as path:
            np.savez(path, indices=indices, features=features.astype(np.float16))
    return features


def print_scores(scores: dict[str, dict[str, float]]) -> None:
    """One line a category and score, with the value measured when the score was defined."""
    for score, values in scores.items():
        print(f"\n{score:20} {'here':>6} {'expected':>9}")
        for name, value in values.items():
            expected = EXPECTED.get(score, {}).get(name)
            print(f"{name:20} {value:6.2f} {'' if expected is None else f'{expected:9.2f}'}")


def main(settings: Settings) -> None:
    """Render, remove near-duplicates, write the bank, print the scores."""
    objects = load_objects(settings.objects)
    indices = choose(objects, settings.categories, settings.limit)
    features = cached_features(objects, indices, settings)
    keep = ~banks.near_duplicates(object_features(features), settings.threshold)
    indices, features = indices[keep], features[keep]
    print(f"{len(keep)} objects, {len(keep) - len(indices)} near-duplicates removed")
    categories = [objects.category[i] for i in indices]
    frontless = objects.symmetric[indices] | objects.colourless[indices]
    bank = banks.build_bank(
        features,
        categories,
        frontless,
        judge.AZIMUTHS_DEG,
        captions=[objects.caption[i] for i in indices],
        dims=settings.dims,
    )
    size = banks.save_bank(bank, settings.out)
    print(f"{settings.out}: {size / 2**20:.2f} MiB, {len(bank.categories)} categories")
    if size >= SIZE_LIMIT:
        sys.exit(f"the bank must stay under {SIZE_LIMIT} bytes: choose fewer --dims")
    scores = real_scores.table(features, categories, frontless, judge.AZIMUTHS_DEG)
    write_json(settings.out.with_name("real_scores.json"), scores)
    print_scores(scores)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
