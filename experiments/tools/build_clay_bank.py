"""Build the judge's second bank: real objects as clay, and how uneven their surfaces are.

    python experiments/tools/build_clay_bank.py --objects ../shared/toybox/objects.npz

Every object is drawn as `export.clay` draws meshes, from the judge's 8 sides (128 x 128), its
features computed, near-duplicates removed. Some are then crumpled, and made lumpy
(`metrics.broken`); real ones, each left out in turn, and broken ones say how much the judge may ask
(`metrics.calibration`).
Bump and creases are the medians of `metrics.geometry` over the categories of at least 3 objects,
duplicates too.

Writes dsd_jax/assets/judge/clay.safetensors, and what real and broken objects score to
clay_scores.json beside it. `--cache FOLDER` keeps the features, so that a second run with other
settings draws nothing.

Time: about 0.25 s an object, real or broken, on a CPU core.
"""

import dataclasses
import itertools
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from dsd_jax.cli import flags
from dsd_jax.data.objects import Objects, load_objects
from dsd_jax.export.clay import clay_views
from dsd_jax.files import atomic_path, write_json
from dsd_jax.metrics import bank as banks
from dsd_jax.metrics import broken, calibration, geometry, judge
from dsd_jax.metrics.calibration import Broken
from dsd_jax.metrics.diversity import object_features
from dsd_jax.metrics.efficientnet import features_in_batches, load_efficientnet
from dsd_jax.metrics.framing import Framing
from dsd_jax.rendering.cameras import DISTANCE, FOV_DEG, ring

SIZE_LIMIT = 2**20
# Not what is lumpy: taught that, the judge turns down real fish once they are meshed from a grid.
TAUGHT = ("crumpled",)
# Categories of fewer objects have no bump of their own.
LEAST = 3


@dataclasses.dataclass
class Settings:
    """What to build the bank from, and where to put it."""

    objects: Path
    """objects.npz"""
    out: Path = Path("dsd_jax/assets/judge/clay.safetensors")
    """file to write"""
    cache: Path | None = None
    """folder that keeps the features of all objects"""
    threshold: float = 0.95
    """objects whose cosine with an earlier one exceeds this are near-duplicates"""
    dims: int = 128
    """numbers per object in the bank"""
    batch: int = 16
    """objects drawn at once"""
    broken: int = 300
    """objects that are broken, in every way, of at most 2,048 triangles"""
    seed: int = 0
    """of what is broken"""


def look(meshes: Iterable[Float[np.ndarray, "f 3 3"]], batch: int) -> Float[np.ndarray, "o 8 1280"]:
    """Features of meshes, given by their triangles, as clay."""
    cameras = ring(judge.AZIMUTHS_DEG, judge.ELEVATION_DEG, DISTANCE, FOV_DEG)
    network, found, meshes = load_efficientnet(), [], iter(meshes)
    while own := list(itertools.islice(meshes, batch)):
        views = np.stack([clay_views(*indexed(mesh), cameras, judge.SIZE) for mesh in own])
        found.append(features_in_batches(network, views).astype(np.float16))
        print(f"\r{sum(map(len, found))} objects", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return np.concatenate(found)


def indexed(
    triangles: Float[np.ndarray, "f 3 3"],
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "f 3"]]:
    """Vertices, one for each corner, and faces."""
    return triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3)


def cached(settings: Settings, name: str, meshes: Iterable[np.ndarray]) -> np.ndarray:
    """`look`, or what the cache holds."""
    path = settings.cache and settings.cache / f"{name}.npy"
    if path and path.is_file():
        return np.load(path)
    found = look(meshes, settings.batch)
    if path:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, found)
    return found


def see_broken(
    objects: Objects, kept: Int[np.ndarray, "k"], settings: Settings
) -> dict[str, Broken]:
    """Some of the objects kept, broken in each way of `broken.AS_CLAY`."""
    rows = np.flatnonzero(objects.num_faces[kept] <= 2048)
    rng = np.random.default_rng(settings.seed)
    source = np.sort(rng.choice(rows, min(settings.broken, len(rows)), replace=False))

    def meshes(way):
        for i in kept[source]:
            yield way(objects.triangles(i), np.random.default_rng([settings.seed, i]))

    return {
        kind: Broken(source, cached(settings, kind, meshes(way)), unframed(len(source)))
        for kind, way in broken.AS_CLAY.items()
    }


def unframed(n: int) -> Framing:
    """A framing that says nothing: clay is drawn where the coloured object is."""
    return Framing(*np.zeros((4, n)))


def reliefs(objects: Objects) -> dict[str, dict[str, float]]:
    """{category: median bump_deg and creased_share}, of those with enough objects."""
    counts, names = Counter(objects.category), np.array(objects.category)
    meshes = (geometry.welded(*indexed(objects.triangles(i))) for i in range(len(objects)))
    found = np.array([geometry.relief(mesh) for mesh in meshes])
    medians = {name: np.median(found[names == name], 0) for name in counts if counts[name] >= LEAST}
    return {name: dict(zip(geometry.Relief._fields, own.tolist(), strict=True))
            for name, own in sorted(medians.items())}  # fmt: skip


def main(settings: Settings) -> None:
    """Draw, remove near-duplicates, write the bank and the scores."""
    objects = load_objects(settings.objects)
    every = cached(settings, "real", (objects.triangles(i) for i in range(len(objects))))
    kept = np.flatnonzero(~banks.near_duplicates(object_features(every), settings.threshold))
    print(f"{len(every)} objects, {len(every) - len(kept)} near-duplicates removed")
    features, names = every[kept].astype(np.float32), np.array(objects.category)[kept]
    others = see_broken(objects, kept, settings)
    found = calibration.calibrate(
        features, names.tolist(), unframed(len(kept)), others, settings.threshold, TAUGHT
    )
    known, counts = reliefs(objects), Counter(names.tolist())
    accepted = {name: float(found.passes[names == name].mean())
                for name, count in sorted(counts.items()) if count > 1}  # fmt: skip
    bank = banks.build_bank(
        features,
        names.tolist(),
        np.ones(len(kept), bool),
        judge.AZIMUTHS_DEG,
        limits=found.limits,
        whole=found.whole,
        real={name: known.get(name, {}) | {"accepted": accepted.get(name)} for name in counts},
        dims=settings.dims,
    )
    size = banks.save_bank(bank, settings.out)
    print(f"{settings.out}: {size / 2**20:.2f} MiB; {found.shares}")
    if size >= SIZE_LIMIT:
        sys.exit(f"the bank must stay under {SIZE_LIMIT} bytes: choose fewer --dims")
    scores = {"calibration": found.shares, "accepted": accepted, "relief": known}
    write_json(settings.out.with_name("clay_scores.json"), scores)


if __name__ == "__main__":
    main(flags.cli(Settings, None, __doc__))
