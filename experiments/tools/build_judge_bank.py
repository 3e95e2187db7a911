"""Build the judge's bank of real objects, and print what real objects score.

    python experiments/tools/build_judge_bank.py --objects ../shared/toybox/objects.npz

Every object is rendered from 8 sides (elevation 20 degrees, azimuths 0, 45, ... 315, 128 x 128, on
grey 0.8, a light near each camera), its features computed, near-duplicates removed. Some objects
are then broken in each way of `metrics.broken`; real ones, each left out in turn, and broken ones
say how much the judge may ask (`metrics.calibration`). The bank is written to
dsd_jax/assets/judge/bank.safetensors, and what real and broken objects score to real_scores.json
beside it. Objects without a colour of their own count for no direction: all white, they differ from
the others more than a front differs from a back. `--cache FOLDER` keeps what was seen, so that a
second run with other settings renders nothing.

Time: about 0.5 s an object, real or broken, on 2 CPU cores; use a GPU for all 2,704 + 2,400.
"""

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dsd_jax.cli import flags
from dsd_jax.data.objects import Objects, load_objects
from dsd_jax.data.pictures import ViewPlan, plan_lights, render_batches
from dsd_jax.files import atomic_path, write_json
from dsd_jax.metrics import bank as banks
from dsd_jax.metrics import broken, calibration, grain, judge, real_scores
from dsd_jax.metrics.diversity import object_features
from dsd_jax.metrics.efficientnet import features_in_batches, load_efficientnet
from dsd_jax.metrics.framing import Framing, framing, relief

# Measured when the scores were defined, each object left out in turn; directions by four views.
EXPECTED = {
    "direction": {"car": 0.87, "chair": 0.89, "sofa": 0.87, "fish": 0.82},
    "one_front": {"car": 0.76, "chair": 0.91, "sofa": 1.00, "fish": 0.93},
    "distance": {"house": 0.46, "chair": 0.44, "tree": 0.52, "fish": 0.40, "car": 0.32},
}  # fmt: skip
SIZE_LIMIT = 2 * 2**20
UNIT = 32000.0


@dataclasses.dataclass
class Settings:
    """What to build the bank from, and where to put it."""

    objects: Path
    """objects.npz"""
    out: Path = Path("dsd_jax/assets/judge/bank.safetensors")
    """file to write"""
    cache: Path | None = None
    """folder that keeps what was seen of all objects"""
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
    broken: int = 300
    """objects that are broken, in every way, of at most 2,048 triangles"""
    seed: int = 0
    """of the lights, and of what is broken"""


class Seen(NamedTuple):
    """What is kept of the views of n objects.

    Attributes:
        source: index of each in objects.npz.
        features: [n, 8, 1280].
        frame: [n, 3], the first of `Framing`.
        texture: [n, 8, 2], see `grain.of_views`.
    """

    source: np.ndarray
    features: np.ndarray
    frame: np.ndarray
    texture: np.ndarray

    @property
    def framing(self) -> Framing:
        """As `framing` finds it."""
        sideways, upwards, extent = self.frame.T
        return Framing(sideways, upwards, extent, relief(self.texture))


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


def look(pictures: Iterable[np.ndarray], source: np.ndarray) -> Seen:
    """What is seen in RGBA pictures [b, 8, h, w, 4], floats, in the order of `source`."""
    network, found = load_efficientnet(), []
    for rgba in pictures:
        views = rgba[..., :3] + (1 - rgba[..., 3:]) * np.float32(judge.BACKGROUND)
        features = features_in_batches(network, views).astype(np.float16)
        found.append((features, np.stack(framing(views)[:3], -1), grain.of_views(views)))
        done = sum(len(part[0]) for part in found)
        print(f"\r{done} of {len(source)} objects", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return Seen(source, *(np.concatenate(parts) for parts in zip(*found, strict=True)))


def rendered(objects: Objects, indices: np.ndarray, lights: np.ndarray, settings: Settings):
    """Yields (rows, RGBA [b, 8, h, w, 4]) of objects; `lights` are rows of the plan of lights."""
    plan = judge_views(int(lights.max()) + 1, settings.seed)
    plan = jax.tree.map(lambda leaf: leaf[lights], plan)
    for rows, rgba in render_batches(
        objects, indices, plan, resolution=judge.SIZE, batch=settings.batch,
        supersample=settings.supersample,
    ):  # fmt: skip
        yield rows, np.asarray(rgba).astype(np.float32) / 255


def look_at(objects: Objects, indices: np.ndarray, source: np.ndarray, settings: Settings) -> Seen:
    """`look` at rendered objects, `source` being what they were made from."""
    order: list[int] = []

    def pictures():
        for rows, rgba in rendered(objects, indices, source, settings):
            order.extend(rows)
            yield rgba

    seen = look(pictures(), source)
    back = np.argsort(order)
    return Seen(source, *(part[back] for part in seen[1:]))


def broken_in_3d(objects: Objects, kind: str, source: np.ndarray) -> Objects:
    """Those objects, each broken in this way."""
    parts = [
        broken.IN_3D[kind](objects.triangles(i), objects.colours(i), np.random.default_rng(int(i)))
        for i in source
    ]
    faces = [np.arange(3 * len(own)).reshape(-1, 3) for own, _ in parts]
    ends = np.cumsum([0, *(len(own) for own, _ in parts)]).astype(np.int32)
    nothing = np.zeros(len(source), bool)
    return Objects(
        vertices=np.concatenate([np.round(own.reshape(-1, 3) * UNIT) for own, _ in parts]).astype(
            np.int16
        ),
        faces=np.concatenate(faces).astype(np.uint16),
        face_rgb=np.concatenate([np.round(own * 255) for _, own in parts]).astype(np.uint8),
        vertex_offset=3 * ends,
        face_offset=ends,
        caption=[kind] * len(source),
        category=[kind] * len(source),
        symmetric=nothing,
        colourless=nothing,
        scale=np.ones(len(source), np.float32),
    )


def broken_in_pictures(
    objects: Objects, source: np.ndarray, settings: Settings
) -> Callable[[str], Seen]:
    """kind -> what is seen of those objects, broken in this way."""
    rgba = np.zeros((len(source), len(judge.AZIMUTHS_DEG), judge.SIZE, judge.SIZE, 4), np.float32)
    for rows, own in rendered(objects, source, source, settings):
        rgba[rows] = own
    others = np.roll(np.arange(len(source)), 1)

    def see(kind: str) -> Seen:
        pairs = zip(source, rgba, rgba[others], strict=True)
        rngs = ((own, other, np.random.default_rng(int(i))) for i, own, other in pairs)
        return look((broken.IN_PICTURES[kind](*one)[None] for one in rngs), source)

    return see


def cached(settings: Settings, name: str, source: np.ndarray, make: Callable[[], Seen]) -> Seen:
    """What `make` returns, read from the cache where that holds exactly these objects."""
    path = settings.cache and settings.cache / f"{name}.npz"
    if path and path.is_file():
        with np.load(path) as file:
            if np.array_equal(file["source"], source):
                return Seen(**file)
        print(f"{path} holds other objects: looking anew", file=sys.stderr)
    print(name, file=sys.stderr)
    seen = make()
    if path:
        with atomic_path(path) as temporary:
            np.savez(temporary, **seen._asdict())
    return seen


def see_broken(objects: Objects, kept: np.ndarray, settings: Settings) -> dict[str, Seen]:
    """What is seen of some of the objects kept, broken in every way."""
    simple = kept[objects.num_faces[kept] <= 2048]
    count = min(settings.broken, len(simple))
    source = np.sort(np.random.default_rng(settings.seed).choice(simple, count, replace=False))
    pictures: list = []

    def in_pictures(kind: str) -> Seen:
        if not pictures:
            pictures.append(broken_in_pictures(objects, source, settings))
        return pictures[0](kind)

    def in_3d(kind: str) -> Seen:
        return look_at(broken_in_3d(objects, kind, source), np.arange(count), source, settings)

    makers = dict.fromkeys(broken.IN_3D, in_3d) | dict.fromkeys(broken.IN_PICTURES, in_pictures)
    return {
        kind: cached(settings, kind, source, lambda kind=kind, make=make: make(kind))
        for kind, make in makers.items()
    }


def calibrate(
    seen: Seen, categories: list[str], others: dict[str, Seen], threshold: float
) -> calibration.Calibration:
    """`calibration.calibrate` of what was seen."""
    found = {
        kind: calibration.Broken(
            np.searchsorted(seen.source, own.source), own.features, own.framing
        )
        for kind, own in others.items()
    }
    return calibration.calibrate(seen.features, categories, seen.framing, found, threshold)


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
    seen = cached(settings, "real", indices, lambda: look_at(objects, indices, indices, settings))
    keep = ~banks.near_duplicates(object_features(seen.features), settings.threshold)
    seen = Seen(*(part[keep] for part in seen))
    print(f"{len(keep)} objects, {(~keep).sum()} near-duplicates removed")
    categories = [objects.category[i] for i in seen.source]
    frontless = objects.symmetric[seen.source] | objects.colourless[seen.source]
    others = see_broken(objects, seen.source, settings)
    found = calibrate(seen, categories, others, settings.threshold)
    members = {name: np.array(categories) == name for name in set(categories)}
    features = seen.features.astype(np.float32)
    bank = banks.build_bank(
        features,
        categories,
        frontless,
        judge.AZIMUTHS_DEG,
        limits=found.limits,
        whole=found.whole,
        real={name: grain.summary(seen.texture[own]) for name, own in members.items()},
        captions=[objects.caption[i] for i in seen.source],
        dims=settings.dims,
    )
    size = banks.save_bank(bank, settings.out)
    print(f"{settings.out}: {size / 2**20:.2f} MiB, {len(bank.categories)} categories")
    if size >= SIZE_LIMIT:
        sys.exit(f"the bank must stay under {SIZE_LIMIT} bytes: choose fewer --dims")
    scores = {"calibration": found.shares} | real_scores.table(
        features, categories, frontless, judge.AZIMUTHS_DEG,
        passes=found.passes, least_vote=found.limits.vote,
    )  # fmt: skip
    write_json(settings.out.with_name("real_scores.json"), scores)
    print_scores(scores)


if __name__ == "__main__":
    main(flags.cli(Settings, None, __doc__))
