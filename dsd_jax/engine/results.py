"""What objects become: pictures, turntables, fields and meshes of each seed, in a run's folder.

Letters: n seeds, v views, h w pixels.
"""

import dataclasses
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import UInt8

import dsd_jax
from dsd_jax.engine import hosts, picture_scores
from dsd_jax.engine.lost import GONE
from dsd_jax.engine.mesh_scores import draw_clay, with_meshes
from dsd_jax.engine.picture_memory import VIEW_SIZE
from dsd_jax.engine.scoring import summary
from dsd_jax.engine.seed_views import SeedRenderer, seed_renderer, shoot, stage_of
from dsd_jax.export.gallery import write_gallery
from dsd_jax.export.manifest import drop_manifest, write_manifest
from dsd_jax.export.mesh import exporting
from dsd_jax.export.model_files import FORMATS
from dsd_jax.export.pictures import save_png, seeds_sheet, to_uint8
from dsd_jax.export.run_folder import CLAY_SHEET, PICTURE, SHEET, SPLATS, seed_folder, view_name
from dsd_jax.export.scenes import describe_field, save_scene
from dsd_jax.export.video import save_video, turntable_azimuths_deg
from dsd_jax.files import plain, write_json
from dsd_jax.priors import EMBEDDED
from dsd_jax.recipe.recipe import Recipe, method_name
from dsd_jax.recipe.state import State
from dsd_jax.rendering.cameras import AZIMUTHS_DEG, ELEVATION_DEG, Camera, ring
from dsd_jax.rendering.scene import GREY

if TYPE_CHECKING:
    from dsd_jax.engine.objects import Objects
    from dsd_jax.engine.progress import Bar

__all__ = ["stage_of"]
SHEET_TILE = 192


# ---- pictures ----------------------------------------------------------------------------------


def views_renderer(recipe: Recipe, device_mesh: Mesh, refined: bool = True) -> SeedRenderer:
    """What draws the 8 views of objects whose refinement has begun, or else has not."""
    scene, samples = recipe.scene_of(refined), recipe.results.final_samples
    return seed_renderer(scene, VIEW_SIZE, samples, device_mesh)


def turntable_renderer(recipe: Recipe, device_mesh: Mesh, refined: bool = True) -> SeedRenderer:
    """What draws the pictures of a turn, as `views_renderer`."""
    scene, numbers = recipe.scene_of(refined), recipe.results
    return seed_renderer(scene, numbers.turntable_resolution, numbers.final_samples, device_mesh)


def turntable_azimuths(recipe: Recipe) -> list[float]:
    """From where the pictures of a turn are taken, degrees."""
    return list(turntable_azimuths_deg(recipe.results.turntable_frames))


def mesh_cameras(recipe: Recipe) -> Camera:
    """Where meshes are compared with their fields from: the run's eight views."""
    return ring(AZIMUTHS_DEG, ELEVATION_DEG, recipe.camera.distance, recipe.camera.fov_deg)


def render(
    objects: "Objects", renderer_of: Callable[..., SeedRenderer], azimuths_deg=AZIMUTHS_DEG
) -> UInt8[np.ndarray, "n v h w 3"]:
    """Pictures of all objects, in the order of their seeds, by what `views_renderer` gives."""
    found: dict[int, np.ndarray] = {}
    for seeds, states in _placed(objects):
        refined = steps_done(states) > objects.recipe.steps
        renderer = renderer_of(objects.recipe, objects.device_mesh, refined)
        pictures = shoot(renderer, states, azimuths_deg, ELEVATION_DEG, objects.recipe)
        found.update(zip(seeds, hosts.all_rows(pictures), strict=False))
    return np.stack([found[seed] for seed in objects.seeds])


def _placed(objects: "Objects") -> list[tuple[list[int], State]]:
    """Each chunk's seeds and states, on the devices."""
    by_seed = NamedSharding(objects.device_mesh, PartitionSpec("seed"))
    return [(seeds, hosts.spread_rows(rows, by_seed)) for seeds, rows in objects.chunks]


def steps_done(states: State) -> int:
    """Steps that the stacked states have behind them."""
    return int(hosts.own_rows(states.step)[0])


# ---- the run's folder --------------------------------------------------------------------------


def recipe_config(recipe: Recipe) -> dict[str, Any]:
    """A recipe in JSON types: {"steps": 400, "method": {"name": "dsd", ...}, ...}."""
    parts = [own.name for own in dataclasses.fields(recipe) if own.name not in ("steps", "field")]
    found: dict[str, Any] = {"steps": recipe.steps}
    found |= {part: dataclasses.asdict(getattr(recipe, part)) for part in parts}
    found["method"]["name"] = method_name(recipe.method)
    field = describe_field(recipe.field)
    found["field"] = {"kind": field["kind"], **(field["field"] or {})}
    return cast(dict[str, Any], plain(found))


def config_of(recipe: Recipe, seeds: list[int], prior: str, precision: str) -> dict[str, Any]:
    """What config.json says beside what the prior was told."""
    return {
        "seeds": seeds,
        "method": method_name(recipe.method),
        "prior": prior,
        "precision": precision,
        "recipe": recipe_config(recipe),
        "version": dsd_jax.__version__,
    }


def given_of(prior: str, files: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What config.json notes besides, for the gallery's command: where the given files are.

    It makes no other run. Empty where neither the prior nor anything else is a file.
    """
    given = dict(files or {})
    if prior not in EMBEDDED and Path(prior).exists():
        given["prior"] = Path(prior).absolute()
    return {"given": plain(given)} if given else {}


class _Silent:
    """In the place of a bar."""

    steps_per_second = None

    def say(self, text: str) -> None: ...

    def describe(self, text: str) -> None: ...

    def count(self, description: str, total: int) -> Callable[[], None]:
        return lambda: None


class Kept(NamedTuple):
    """What of a finished run is whole, and stays as it is.

    Attributes:
        meshed: the seeds whose meshes are.
        clay, pictures, metrics: whether these are.
        formats: of meshes that are not.
    """

    meshed: Collection[int] = ()
    clay: bool = False
    pictures: bool = False
    metrics: bool = False
    formats: Sequence[str] = ("glb",)


def kept_of(listed: Collection[str], broken: Collection[str], seeds: list[int]) -> Kept:
    """What stays of a run, of the files that its manifest lists and those that are not whole."""
    places = [PurePosixPath(name) for name in broken]
    meshes = {path.parts[0] for path in places if path.stem == "mesh" and path.suffix != ".js"}
    clay = {name for name in broken if name == CLAY_SHEET or "/clay/" in name}
    own = {seed: seed_folder("", seed).name for seed in seeds}
    rest = [path for path in places if path.suffix in (".png", ".mp4") and path.stem != "mesh"]
    return Kept(
        [k for k in seeds if f"{own[k]}/mesh.glb" in listed and own[k] not in meshes],
        not meshes and not clay,
        {*map(str, rest)} <= clay,
        "metrics.json" not in broken,
        [f for f in FORMATS if any(PurePosixPath(n).name == f"mesh.{f}" for n in listed)]
        or ["glb"],
    )


def save(
    objects: "Objects", folder: Path, meshes: bool | Collection[int], config: Mapping[str, Any],
    bar: "Bar | None" = None, times: Callable[[], dict[str, float]] | None = None,
    kept: Kept | None = None,
) -> Path:  # fmt: skip
    """`Objects.save`. Several processes call it together; the first writes what is of all.

    Args:
        meshes: whether there are to be any, or of which seeds.
        kept: of a finished run's folder, in which the list of its files stays until the end.
    """
    shown, first = bar or _Silent(), hosts.is_first()
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config)
    if first and kept is None:
        drop_manifest(folder)
    hosts.wait("folder")
    _write_fields(objects, folder, anew=kept is None)
    kept = kept or Kept()
    hosts.wait("fields")
    began = time.monotonic()
    wanted = objects.seeds if meshes is True else list(meshes or ())
    wanted = [seed for seed in wanted if seed not in objects.diverged and first]
    missing = [seed for seed in wanted if seed not in kept.meshed]
    cameras, field = mesh_cameras(objects.recipe), objects.recipe.scene.field
    with exporting(folder, missing, cameras, formats=kept.formats, field=field) as finish_meshes:
        views = None if kept.pictures else _write_views(objects, folder, shown)
        rendered = time.monotonic()
        hosts.wait("views")
        shown.describe("scoring")
        scores = objects.scores(views) if first and not kept.metrics else None
        shown.describe("meshes" if missing else "scoring")
        failed = finish_meshes(lambda line: None, shown.say)
    meshed = [seed for seed in wanted if seed not in failed]
    if scores:
        scores = with_meshes(scores, objects.seeds, folder, meshed, cameras)
        seconds = {
            **({} if objects.seconds is None else {"optimising": objects.seconds}),
            "rendering": rendered - began,
            "meshes" if wanted else "scoring": time.monotonic() - rendered,
            **(times() if times else {}),
        }
        metrics = summary(objects, scores) | {
            "iterations_per_second": shown.steps_per_second,
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
        }
        write_json(folder / "metrics.json", metrics)
    elif first and meshed and not kept.clay:
        draw_clay(folder, meshed, cameras)
    if first:
        page = write_gallery(folder)
        write_manifest(folder, objects.diverged)
        shown.say(f"gallery: {page}")
    return folder


def _write_fields(objects: "Objects", folder: Path, anew: bool) -> None:
    """The fields of those seeds that this process has."""
    for seed, scene in objects.own_scenes.items():
        own = seed_folder(folder, seed)
        if seed in objects.diverged:
            shutil.rmtree(own, ignore_errors=True)
            continue
        own.mkdir(exist_ok=True)
        save_scene(own, scene, {"steps": objects.steps[seed], **objects.latest.get(seed, {})})
        for name in SPLATS if anew else ():  # of a field before
            (own / name).unlink(missing_ok=True)


def _write_views(
    objects: "Objects", folder: Path, bar: "Bar | _Silent"
) -> UInt8[np.ndarray, "n 8 h w 3"]:
    """Every seed's pictures and turntable, and the contact sheet; returns the views of all.

    Each process writes its own seeds.
    """
    recipe, found = objects.recipe, {}
    azimuths = turntable_azimuths(recipe)
    fps = max(1, round(len(azimuths) / recipe.results.turntable_seconds))
    parts = len(objects.chunks) * (len(AZIMUTHS_DEG) + len(azimuths))
    on_view = bar.count("rendering", parts)
    for seeds, states in _placed(objects):
        known = recipe, objects.device_mesh, steps_done(states) > recipe.steps
        renderers = views_renderer(*known), turntable_renderer(*known)
        views, frames = (
            shoot(renderer, states, places, ELEVATION_DEG, recipe, on_view)
            for renderer, places in zip(renderers, (AZIMUTHS_DEG, azimuths), strict=True)
        )

        def write(i: int, seed: int, views=views, frames=frames) -> None:
            if seed in objects.diverged:
                return
            own = seed_folder(folder, seed)
            for azimuth, picture in zip(AZIMUTHS_DEG, views[i], strict=True):
                save_png(own / "views" / view_name(azimuth), picture)
            save_video(own / "turntable.mp4", frames[i], fps)

        with ThreadPoolExecutor() as pool:
            own_seeds = seeds[hosts.own_slice(states.step.shape[0])]
            list(pool.map(write, range(len(own_seeds)), own_seeds))
        found.update(zip(seeds, hosts.all_rows(views), strict=False))
    for seed in objects.diverged:
        found[seed] = np.full_like(found[seed], to_uint8(np.array(GREY)))
    views = np.stack([found[seed] for seed in objects.seeds])
    objects.look(views)
    for seed, why in objects.lost.items():
        if why == GONE:
            bar.say(f"seed {seed}: {why}; it is left out of the scores")
    if hosts.is_first():
        beside = None if objects.about.reference is None else picture_scores.on_grey(objects)
        if beside is not None:
            save_png(folder / PICTURE, beside)
        save_png(
            folder / SHEET, seeds_sheet(views, objects.seeds, SHEET_TILE, beside, objects.lost)
        )
    return views
