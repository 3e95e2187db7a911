"""What objects become: pictures, turntables, fields and meshes of each seed, and their scores.

Letters: n seeds, v views, h w pixels.
"""

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import UInt8

import dsd_jax
from dsd_jax.engine import host_memory, hosts, picture_scores
from dsd_jax.engine.lost import GONE, scores_without
from dsd_jax.engine.mesh_scores import with_meshes
from dsd_jax.engine.seed_views import SeedRenderer, seed_renderer, shoot, stage_of
from dsd_jax.export.gallery import write_gallery
from dsd_jax.export.manifest import drop_manifest, write_manifest
from dsd_jax.export.mesh import exporting
from dsd_jax.export.pictures import save_png, seeds_sheet
from dsd_jax.export.run_folder import PICTURE, SHEET, SPLATS, seed_folder, view_name
from dsd_jax.export.scenes import describe_field, save_scene
from dsd_jax.export.video import save_video, turntable_azimuths_deg
from dsd_jax.files import plain, write_json
from dsd_jax.metrics.scores import Scores, of_prompt
from dsd_jax.priors import EMBEDDED
from dsd_jax.recipe.recipe import Recipe, method_name
from dsd_jax.recipe.state import State
from dsd_jax.rendering.cameras import AZIMUTHS_DEG, ELEVATION_DEG, Camera, ring

if TYPE_CHECKING:
    from dsd_jax.engine.objects import Objects
    from dsd_jax.engine.plan import Plan
    from dsd_jax.engine.progress import Bar

__all__ = ["stage_of"]
VIEW_SIZE, SHEET_TILE = 256, 192


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


# ---- scores ------------------------------------------------------------------------------------


def score(objects: "Objects", views: UInt8[np.ndarray, "n 8 h w 3"]) -> Scores:
    """Diversity between seeds, and fidelity to the prompt or picture, of those not lost."""
    reference = objects.about.reference
    if objects.about.pictured and reference is None:
        raise ValueError("the picture that these objects were made from is not at hand")
    objects.look(views)

    def own(rows: list[int]) -> Scores:
        if reference is None:
            return of_prompt(objects.prompt, views[rows])
        fields = [objects[i].scene for i in rows]
        return picture_scores.of_fields(fields, reference, objects.recipe, views[rows])

    return scores_without(objects.seeds, objects.lost, own)


def summary(objects: "Objects", scores: Scores) -> dict[str, Any]:
    """What metrics.json says about the result, overall and per seed."""
    return {
        **scores.run,
        "seeds": {
            str(seed): {"steps": objects.steps[seed], **own, **objects.latest.get(seed, {})}
            | ({"lost": objects.lost[seed]} if seed in objects.lost else {})
            for seed, own in zip(objects.seeds, scores.seeds, strict=True)
        },
        "lost": [seed for seed in objects.seeds if seed in objects.lost],
        "interrupted": bool(objects.interrupted),
        **({"planned_memory_gb": planned_memory_gb(objects.plan)} if objects.plan else {}),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "peak_memory_gb": peak_memory_gb(),
    }


def planned_memory_gb(plan: "Plan") -> dict[str, float]:
    """What `plan` expects one memory to hold, in 1e9 bytes: the parts, and in all."""
    parts = {"program": plan.program, **plan.needs._asdict(), "in_all": plan.bytes_needed}
    return {name: round(size / 1e9, 6) for name, size in parts.items()}


def peak_memory_gb() -> dict[str, float]:
    """Most 1e9 bytes held so far, by the process and by the device that held most."""
    peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use", 0) for d in jax.local_devices()]
    return {"host": round(host_memory.peak() / 1e9, 2), "device": round(max(peaks) / 1e9, 2)}


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


def save(
    objects: "Objects", folder: Path, meshes: bool, config: Mapping[str, Any],
    bar: "Bar | None" = None, times: Callable[[], dict[str, float]] | None = None,
) -> Path:  # fmt: skip
    """`Objects.save`. Several processes call it together; the first writes what is of all."""
    shown, first = bar or _Silent(), hosts.is_first()
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config)
        drop_manifest(folder)
    hosts.wait("folder")
    _write_fields(objects, folder)
    hosts.wait("fields")
    began = time.monotonic()
    wanted = [seed for seed in objects.seeds if seed not in objects.diverged]
    wanted = wanted if meshes and first else []
    cameras, field = mesh_cameras(objects.recipe), objects.recipe.scene.field
    with exporting(folder, wanted, cameras, field=field) as finish_meshes:
        views = _write_views(objects, folder, shown)
        rendered = time.monotonic()
        hosts.wait("views")
        shown.describe("scoring")
        scores = objects.scores(views) if first else None
        shown.describe("meshes" if wanted else "scoring")
        failed = finish_meshes(lambda line: None, shown.say)
    if scores:
        meshed = [seed for seed in wanted if seed not in failed]
        scores = with_meshes(scores, objects.seeds, folder, meshed, cameras)
        seconds = {
            "optimising": objects.seconds,
            "rendering": rendered - began,
            "meshes" if wanted else "scoring": time.monotonic() - rendered,
            **(times() if times else {}),
        }
        metrics = summary(objects, scores) | {
            "iterations_per_second": shown.steps_per_second,
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
        }
        write_json(folder / "metrics.json", metrics)
        page = write_gallery(folder)
        write_manifest(folder)
        shown.say(f"gallery: {page}")
    return folder


def _write_fields(objects: "Objects", folder: Path) -> None:
    """The fields of those seeds that this process has."""
    for seed, scene in objects.own_scenes.items():
        own = seed_folder(folder, seed)
        if seed in objects.diverged:
            shutil.rmtree(own, ignore_errors=True)
            continue
        own.mkdir(exist_ok=True)
        save_scene(own, scene)
        for name in SPLATS:  # of a field before
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
