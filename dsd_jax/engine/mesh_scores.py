"""How good the meshes of a run are: beside their fields, as geometry, and as clay to the judge.

Letters: n seeds with a mesh, or vertices of one, f faces, v = 8 views, h w pixels.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from dsd_jax.export.clay import clay_views
from dsd_jax.export.pictures import save_png, seeds_sheet
from dsd_jax.export.run_folder import (
    CLAY_SHEET,
    read_mesh_report,
    read_metrics,
    seed_folder,
    view_name,
)
from dsd_jax.files import Damaged, write_json
from dsd_jax.metrics import efficientnet, geometry, judge
from dsd_jax.metrics.averages import means
from dsd_jax.metrics.bank import Bank, load_bank
from dsd_jax.metrics.scores import Scores
from dsd_jax.rendering.cameras import AZIMUTHS_DEG, Camera

SIZE = 192


def with_meshes(
    scores: Scores, seeds: list[int], folder: Path, meshed: list[int], cameras: Camera
) -> Scores:
    """`scores`, and of the seeds that have a mesh "mesh_iou", of the silhouettes of field and mesh,
    the mean over the 8 views, and "geometry", see `geometries`; for the run their means.

    None without a mesh. Writes the clay views of each, and a sheet of them.
    """
    if not meshed:
        nothing = {"mesh_iou": None, "geometry": None}
        return Scores(scores.run | nothing, [own | nothing for own in scores.seeds])
    looked = draw_clay(folder, meshed, cameras)
    views = np.stack([seen.clay for seen in looked])
    category = (scores.run.get("fidelity") or {}).get("category")
    told = geometries([seen.measured for seen in looked], views, category, load_bank(name="clay"))
    found = {
        seed: {"mesh_iou": seen.iou, "geometry": own}
        for seed, seen, own in zip(meshed, looked, told.seeds, strict=True)
    }
    each = [found.get(seed, {"mesh_iou": None, "geometry": None}) for seed in seeds]
    iou = float(np.mean([seen.iou for seen in looked]))
    return Scores(
        scores.run | {"mesh_iou": iou, "geometry": told.run},
        [own | mesh for own, mesh in zip(scores.seeds, each, strict=True)],
    )


def renew(run: Path, cameras: Camera) -> list[str]:
    """Score all meshes of a finished run again, in its metrics.json, with their pictures of clay.

    Returns the files that are written, as manifest.json names them; none where no seed has a
    mesh.glb. Raises FileNotFoundError or ValueError, in one line, where a file is damaged.
    """
    metrics = read_metrics(run)
    seeds = [int(seed) for seed in metrics["seeds"]]
    meshed = [seed for seed in seeds if (seed_folder(run, seed) / "mesh.glb").is_file()]
    if not meshed:
        return []
    scores = with_meshes(Scores(metrics, [*metrics["seeds"].values()]), seeds, run, meshed, cameras)
    own = dict(zip(metrics["seeds"], scores.seeds, strict=True))
    write_json(run / "metrics.json", scores.run | {"seeds": own})
    clay = (seed_folder(run, seed) / "clay" for seed in meshed)
    pictures = [path for folder in clay for path in sorted(folder.glob("*.png"))]
    return ["metrics.json", CLAY_SHEET, *(path.relative_to(run).as_posix() for path in pictures)]


class Seen(NamedTuple):
    """What is seen of a mesh: the mean IoU, what `geometry.measure` says, and its clay views."""

    iou: float
    measured: dict[str, Any]
    clay: UInt8[np.ndarray, "v h w 3"]


def _look(folder: Path, cameras: Camera) -> Seen:
    """Keeps the clay views in the folder."""
    import trimesh

    report = read_mesh_report(folder, "scale", "origin", "silhouette_iou")
    try:
        mesh = trimesh.load_mesh(folder / "mesh.glb", process=False)
        vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    except Exception:  # trimesh's readers raise whatever they stumble over
        raise Damaged(folder / "mesh.glb", "it holds no mesh") from None
    found = look_at(vertices, faces, report, cameras)
    for azimuth, picture in zip(AZIMUTHS_DEG, found.clay, strict=True):
        save_png(folder / "clay" / view_name(azimuth), picture)
    return found


def look_at(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    report: Mapping[str, Any],
    cameras: Camera,
) -> Seen:
    """Of a mesh of unit size and its "scale", "origin" and "silhouette_iou", see `MeshResult`."""
    views = clay_views(
        np.asarray(vertices) / report["scale"] + report["origin"], faces, cameras, SIZE
    )
    measured = geometry.measure(geometry.welded(vertices, faces))
    return Seen(float(np.mean(report["silhouette_iou"])), measured, views)


def draw_clay(folder: Path, meshed: list[int], cameras: Camera) -> list[Seen]:
    """The clay views of each seed that has a mesh, written, and a sheet of them."""
    with ThreadPoolExecutor() as pool:
        looked = list(pool.map(lambda seed: _look(seed_folder(folder, seed), cameras), meshed))
    save_png(folder / CLAY_SHEET, seeds_sheet(np.stack([s.clay for s in looked]), meshed, SIZE))
    return looked


def geometries(
    measured: list[dict[str, Any]],
    views: UInt8[np.ndarray, "n v h w 3"],
    category: str | None,
    bank: Bank,
) -> Scores:
    """What metrics.json says of meshes.

    Args:
        measured: of `geometry.measure`.
        views: of clay.
        category: what was asked for; None where it is unknown.
        bank: of clay.

    Returns for each what was measured, and, None where the bank does not know the category, "bump"
    and "creased" over the median of real objects and "clay", whether the judge takes the clay for
    what was asked; for the run the means, and "clay_over_real", over the share of real objects.
    """
    if category not in bank.categories:
        unknown = dict.fromkeys(("bump", "creased", "clay"))
        rows = [own | unknown for own in measured]
        return Scores(means(rows) | {"clay_over_real": None}, rows)
    index = bank.categories.index(category)
    features = efficientnet.features_in_batches(efficientnet.load_efficientnet(), views)
    told = judge.verdict(bank, category, features).accepted.tolist()
    rows = [
        own
        | {
            "bump": _over(own["bump_deg"], bank.bump_deg[index]),
            "creased": _over(own["creased_share"], bank.creased_share[index]),
            "clay": clay,
        }
        for own, clay in zip(measured, told, strict=True)
    ]
    return Scores(
        means(rows) | {"clay_over_real": _over(float(np.mean(told)), bank.accepted[index])}, rows
    )


def _over(value: float, real: np.floating) -> float | None:
    """None where that of real objects is unknown or 0."""
    return value / float(real) if real > 0 else None
