"""The judge's memory: compact features of real objects, in a file of less than 2 MiB.

Letters: o objects of the bank, v views, f = 1280 features of the network, d of the bank, c
categories, e categories that have a front.

Features are projected on their d main uncentred directions (which keeps cosines: the projection
is orthonormal), objects are stored as int8 with one scale a column, the rest as float16.
"""

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dsd_jax.files import atomic_path
from dsd_jax.metrics.diversity import cosine_similarity, object_features, unit
from dsd_jax.metrics.nouns import learn_nouns

# Directions of a view, as rows of `Bank.view_means`, by azimuth in degrees.
FRONT, SIDE, BACK = 0, 1, 2
DIRECTIONS = {0: FRONT, 90: SIDE, 180: BACK, 270: SIDE}
# Arrays that are stored as they are.
# Scores of real objects, of each category.
_OF_CATEGORY = ("grain", "holes", "bump_deg", "creased_share", "accepted")
_PLAIN = ("alike", "whole", *_OF_CATEGORY)
FORMAT = "dsd_jax judge bank 2"


class Limits(NamedTuple):
    """What an object must reach to be accepted; see `metrics.judge`.

    Attributes:
        vote: least vote for the category that was asked for.
        whole: least `Bank.whole` component.
        sideways, upwards: how far out of the middle at most, see `metrics.framing`.
        extent, relief: how large, and with how much on it, at least.
    """

    vote: float
    whole: float
    sideways: float
    upwards: float
    extent: float
    relief: float


class Bank(NamedTuple):
    """Features of real objects.

    Attributes:
        categories: names of the c categories, sorted.
        category: of each object, an index into `categories`.
        features: of each object, the mean over its views; rows of unit length.
        projection: from the network's features to the bank's.
        fronted: the e indices of the categories that have `view_means`.
        view_means: mean features, of length 1 each, of a category's objects seen from the front,
            the sides and the back.
        nouns: {noun phrase: category} for `metrics.nouns.category_of`.
        alike: of each object, the cosine to the nearest other one of its category; nan if alone.
        whole: the direction of `metrics.wholeness`.
        grain, holes: of real objects of each category, see `metrics.grain`; nan if unknown.
        bump_deg, creased_share: likewise, see `metrics.geometry`.
        accepted: likewise, share of them that this bank accepts, each left out in turn.
        limits: of the verdict.
    """

    categories: tuple[str, ...]
    category: Int[np.ndarray, "o"]
    features: Float[np.ndarray, "o d"]
    projection: Float[np.ndarray, "f d"]
    fronted: Int[np.ndarray, "e"]
    view_means: Float[np.ndarray, "e 3 d"]
    nouns: dict[str, str]
    alike: Float[np.ndarray, "o"]
    whole: Float[np.ndarray, "2f"]
    grain: Float[np.ndarray, "c"]
    holes: Float[np.ndarray, "c"]
    bump_deg: Float[np.ndarray, "c"]
    creased_share: Float[np.ndarray, "c"]
    accepted: Float[np.ndarray, "c"]
    limits: Limits


def near_duplicates(
    features: Float[np.ndarray, "o f"], threshold: float = 0.95
) -> Bool[np.ndarray, "o"]:
    """True for each object whose cosine with an earlier object that stays exceeds `threshold`."""
    close = cosine_similarity(features, features) > threshold
    drop = np.zeros(len(close), bool)
    for i in range(1, len(close)):
        drop[i] = (close[i, :i] & ~drop[:i]).any()
    return drop


def direction_columns(azimuths_deg: Sequence[float]) -> list[tuple[int, int]]:
    """(view, direction) of each view at azimuth 0, 90, 180 or 270; other views are left out."""
    found = ((i, round(azimuth % 360, 3)) for i, azimuth in enumerate(azimuths_deg))
    return [(i, DIRECTIONS[int(azimuth)]) for i, azimuth in found if azimuth in DIRECTIONS]


def direction_means(
    view_features: Float[np.ndarray, "o v f"], azimuths_deg: Sequence[float]
) -> Float[np.ndarray, "3 f"]:
    """Mean features of the front, side and back views of some objects, each view of length 1.

    Raises ValueError when a direction has no view.
    """
    columns = direction_columns(azimuths_deg)
    if {direction for _, direction in columns} != {FRONT, SIDE, BACK}:
        raise ValueError(f"need views at azimuths 0, 90 or 270, and 180; got {list(azimuths_deg)}")
    groups = [[view for view, own in columns if own == row] for row in (FRONT, SIDE, BACK)]
    scaled = unit(view_features)
    return np.stack([scaled[:, views].mean((0, 1)) for views in groups])


def build_bank(
    view_features: Float[np.ndarray, "o v f"],
    categories: Sequence[str],
    frontless: Bool[np.ndarray, "o"],
    azimuths_deg: Sequence[float],
    limits: Limits,
    whole: Float[np.ndarray, "2f"],
    real: Mapping[str, Mapping[str, float | None]] | None = None,
    captions: Sequence[str] | None = None,
    dims: int = 256,
    min_fronts: int = 4,
) -> Bank:
    """Bank of the objects given (near-duplicates already removed).

    Args:
        view_features: of `metrics.efficientnet`, float.
        categories: of each object.
        frontless: True where an object counts for no direction, because it looks the same from
            all sides or unlike the rest of its category.
        azimuths_deg: of each view, among them 0, 90 or 270, and 180.
        limits, whole: what `metrics.calibration` found.
        real: {category: {"grain": ...}}, any of the scores of categories that a bank holds.
        captions: of each object; they teach the bank nouns besides the names of categories.
        dims: d, at most o * v and f.
        min_fronts: a category has directions from this many objects with a front on.
    """
    view_features = np.asarray(view_features, np.float32)
    projection = _main_directions(unit(view_features.reshape(-1, view_features.shape[-1])), dims)
    names = tuple(sorted(set(categories)))
    category = np.array([names.index(name) for name in categories], np.int32)
    directed = ~np.asarray(frontless, bool)
    members = [np.flatnonzero((category == c) & directed) for c in range(len(names))]
    fronted = [c for c, objects in enumerate(members) if len(objects) >= min_fronts]
    means = [direction_means(view_features[members[c]], azimuths_deg) for c in fronted]
    features = unit(object_features(view_features) @ projection).astype(np.float32)
    return Bank(
        categories=names,
        category=category,
        features=features,
        projection=projection,
        fronted=np.array(fronted, np.int32),
        view_means=np.reshape(means, (-1, 3, projection.shape[0])).astype(np.float32) @ projection,
        nouns=learn_nouns(names if captions is None else captions,
                          names if captions is None else categories),
        alike=nearest_alike(features, category),
        whole=whole,
        limits=limits,
        **{score: _of_categories(names, real or {}, score) for score in _OF_CATEGORY},
    )  # fmt: skip


def nearest_alike(
    features: Float[np.ndarray, "o d"], category: Int[np.ndarray, "o"]
) -> Float[np.ndarray, "o"]:
    """Cosine of each object to the nearest other one of its category; nan if it is alone."""
    cosines = cosine_similarity(features, features)
    cosines[category[:, None] != category] = -np.inf
    np.fill_diagonal(cosines, -np.inf)
    best = cosines.max(1)
    return np.where(np.isfinite(best), best, np.nan).astype(np.float32)


def _of_categories(names, real, score: str) -> Float[np.ndarray, "c"]:
    """nan where a score is not known."""
    values = (real.get(name, {}).get(score) for name in names)
    return np.array([np.nan if value is None else value for value in values], np.float32)


def save_bank(bank: Bank, path: str | Path) -> int:
    """Write `bank` as one safetensors file; returns its size in bytes."""
    from safetensors.numpy import save

    plain = {name: getattr(bank, name) for name in _PLAIN}
    known = {name: own for name, own in plain.items() if not np.isnan(own).all()}
    scale = np.maximum(np.abs(bank.features).max(0), 1e-12) / 127.0
    tensors = {
        "category": bank.category.astype(np.int16),
        "features": np.rint(bank.features / scale).astype(np.int8),
        "scale": scale.astype(np.float32),
        "projection": bank.projection.astype(np.float16),
        "fronted": bank.fronted.astype(np.int16),
        "view_means": bank.view_means.astype(np.float16),
        **{name: own.astype(np.float32) for name, own in known.items()},
    }
    words = {"categories": bank.categories, "nouns": bank.nouns, "limits": bank.limits._asdict()}
    metadata = {"format": FORMAT} | {k: json.dumps(v, sort_keys=True) for k, v in words.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))
    return Path(path).stat().st_size


def load_bank(path: str | Path | None = None, name: str = "bank") -> Bank:
    """The bank at `path`, by default the one inside the package: "bank", or "clay".

    Raises FileNotFoundError, or ValueError if the file is not a bank.
    """
    from safetensors import SafetensorError, safe_open

    if path is None:
        path = Path(str(importlib.resources.files("dsd_jax"))) / f"assets/judge/{name}.safetensors"
    if not Path(path).is_file():
        tools = "experiments/tools/build_judge_bank.py, or build_clay_bank.py"
        raise FileNotFoundError(f"no judge's bank at {path}: {tools}")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a judge's bank: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is of format {metadata.get('format')!r}, not {FORMAT!r}: build it anew with "
            "experiments/tools/build_judge_bank.py"
        )
    categories = tuple(json.loads(metadata["categories"]))
    unknown = np.full(len(categories), np.nan, np.float32)
    return Bank(
        categories=categories,
        category=tensors["category"].astype(np.int32),
        features=unit(tensors["features"] * tensors["scale"]).astype(np.float32),
        projection=tensors["projection"].astype(np.float32),
        fronted=tensors["fronted"].astype(np.int32),
        view_means=tensors["view_means"].astype(np.float32),
        nouns=json.loads(metadata["nouns"]),
        limits=Limits(**json.loads(metadata["limits"])),
        **{name: tensors.get(name, unknown) for name in _PLAIN},
    )


def _main_directions(features: Float[np.ndarray, "n f"], dims: int) -> Float[np.ndarray, "f d"]:
    """Orthonormal columns: the eigenvectors of the largest eigenvalues of features^T features."""
    if dims > min(features.shape):
        raise ValueError(f"dims {dims} exceed the {min(features.shape)} that the features span")
    gram = features.T @ features
    return np.linalg.eigh(gram)[1][:, ::-1][:, :dims].astype(np.float32)
