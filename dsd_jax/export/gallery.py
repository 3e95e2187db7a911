"""A run's page: all seeds turning in a grid, each with a large view of its mesh.

    write_gallery("runs/a-house-1a2b3c4d")  # index.html, to be opened from disk

The page is dsd_jax/assets/gallery/page.html with its style and script, what is known of the run as
JSON, and the packed model viewer. It needs no server and no network. A page from disk may not read
files, but may run scripts: so each mesh.glb gets a mesh.js beside it, which hands it over when its
large view is opened.
"""

import gzip
import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from dsd_jax.export import manifest
from dsd_jax.export.command import command_line
from dsd_jax.export.page import asset, base64_of, filled
from dsd_jax.export.run_folder import (
    PICTURE,
    SPLATS,
    read_config,
    read_mesh_report,
    read_metrics,
    seed_folder,
    view_name,
)
from dsd_jax.files import AGAIN, atomic_path, plain, reading
from dsd_jax.rendering.cameras import AZIMUTHS_DEG

PAGE, SINGLE_FILE, _SCRIPT = "index.html", "gallery.html", "mesh.js"
# What is made of the other files alone.
PAGES = (PAGE, _SCRIPT)
_VIEWER = "model-viewer-umd.min.js.gz"
_KINDS = {".png": "image/png", ".mp4": "video/mp4"}
# The azimuth of the clay view beside each turning object.
BESIDE_DEG = 45.0
_DOWNLOADS = {"mesh.glb": "GLB", SPLATS[0]: "splats", "turntable.mp4": "video",
              "field.safetensors": "field"}  # fmt: skip


def write_gallery(run: str | Path, single_file: bool = False) -> Path:
    """Write the page of a finished run into its folder, and return its path.

    Args:
        single_file: write gallery.html, which holds all meshes and videos, instead of index.html.

    Raises FileNotFoundError or ValueError, with one line for the user, where the folder holds no
    finished 3D run, or a seed's files are gone.
    """
    run = Path(run)
    page = gallery_page(run, embed=single_file)
    path = run / (SINGLE_FILE if single_file else PAGE)
    if not single_file:
        with ThreadPoolExecutor() as pool:
            seeds = _seeds(read_metrics(run))
            list(pool.map(partial(_write_mesh_script, run), seeds))
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    scripts = [f"{seed_folder(run, seed).name}/{_SCRIPT}" for seed in _seeds(read_metrics(run))]
    manifest.renew(run, [] if single_file else [PAGE, *scripts])
    return path


def gallery_page(run: str | Path, embed: bool = True, models: bool = True) -> str:
    """The page as HTML.

    Args:
        embed: hold all media, instead of links to the files of the folder.
        models: let meshes be turned; without, the large view is the video, and the page as small as
            the videos.

    Raises as `write_gallery`.
    """
    run = Path(run)
    config, metrics = read_config(run), read_metrics(run)
    if not {"seeds", "recipe"} <= set(config) or not {"prompt", "image"} & set(config):
        raise ValueError(f"{run}/config.json is not that of a 3D run; give the folder of one")
    told = json.dumps(plain(_describe(run, config, metrics, embed, models)))
    viewer = base64_of(asset(_VIEWER)) if models else ""
    told = told.replace("<", "\\u003c")  # so that nothing ends the script element around it
    return filled("page.html", VIEWER=viewer, RUN=told)


def _describe(run: Path, config, metrics, embed: bool, models: bool) -> dict[str, Any]:
    """What the page's script shows."""
    seeds = _seeds(metrics)
    for seed in seeds:
        if not (metrics["seeds"][str(seed)].get("lost") or seed_folder(run, seed).is_dir()):
            raise FileNotFoundError(f"{seed_folder(run, seed)} does not exist; {AGAIN}")
    with reading(run / "config.json"):
        of_config = {
            "title": title_of(config),
            "origin": f"dsd_jax {config.get('version', '')}",
            "command": command_line(config),
            "order": "accepted first" if "prompt" in config else "most like the picture first",
            "settings": dict(_numbers(config["recipe"])),
        }
    with reading(run / "metrics.json"):
        each = [_seed(run, seed, metrics["seeds"][str(seed)], embed, models) for seed in seeds]
        facts = " · ".join(_facts(config, metrics, len(seeds)))
        of_metrics = {"facts": facts, "scores": _scores(metrics), "seeds": each}
    return {**_files(run, embed, picture=run / PICTURE), **of_config, **of_metrics}


def _facts(config, metrics, count: int) -> list[str]:
    """The run in a few words."""
    steps = max((seed.get("steps", 0) for seed in metrics["seeds"].values()), default=0)
    lost = len(metrics.get("lost") or ())
    facts = [
        "1 seed" if count == 1 else f"{count} seeds",
        *([f"{lost} of them lost"] if lost else []),
        f"{config.get('method', 'dsd')} with {config.get('prior', 'toybox')}",
        *([f"preset {config['preset']}"] if config.get("preset") else []),
        f"{steps} steps" + (", interrupted" if metrics.get("interrupted") else ""),
    ]
    seconds, devices = metrics.get("seconds", {}).get("total"), metrics.get("devices", 1)
    if seconds:
        device = metrics.get("device", "").replace("cpu", "CPU")
        facts.append(f"{_duration(seconds)} on {f'{devices} × ' if devices > 1 else ''}{device}")
    return facts


def _numbers(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(part and name, value) of every number of a recipe."""
    found = []
    for part, value in recipe.items():
        inner = value if isinstance(value, dict) else {"": value}
        found += [(f"{part}.{name}".rstrip("."), _text(own)) for name, own in inner.items()]
    return found


def title_of(config: Mapping[str, Any]) -> str:
    """What was to be made. Raises LookupError for a configuration that is not a 3D run's."""
    return config["prompt"] if "prompt" in config else config["image"]


def _scores(metrics) -> list[tuple[str, str, str]]:
    """(name, value, what it says) of the run's scores."""
    diversity = _text(metrics.get("diversity"), ".2f")
    scores = [("Diversity", diversity, "mean distance between two seeds; 0 are copies")]
    if "psnr_db" in metrics:
        psnr, iou = _text(metrics["psnr_db"], ".1f"), _text(metrics.get("mask_iou"), ".2f")
        like = f"from the picture's side; silhouettes IoU {iou}"
        return [*scores, ("Like the picture", f"{psnr} dB", like)]
    fidelity = metrics.get("fidelity") or {}
    share, category = fidelity.get("accepted"), fidelity.get("category")
    if share is None:
        reason = fidelity.get("reason") or "there is no judge of this prompt"
        return [*scores, ("Fidelity", "–", reason)]
    judge = f"of the seeds look like “{category}” to a nearest-neighbour judge"
    return [*scores, ("Fidelity", f"{share:.0%}", judge)]


def _seed(run: Path, seed: int, scores, embed: bool, models: bool) -> dict[str, Any]:
    """What the page says of one seed, and where its files are."""
    folder = seed_folder(run, seed)
    there = [name for name in _DOWNLOADS if (folder / name).is_file()]
    has_mesh = models and "mesh.glb" in there
    found: dict[str, Any] = {
        "seed": seed,
        "diversity": scores.get("diversity"),
        **_fidelity(scores),
        "details": _details(folder, scores),
        "views": [],
        "clay": [],
        "downloads": [],
    }
    beside = folder / "clay" / view_name(BESIDE_DEG)
    found |= _files(run, embed, video=folder / "turntable.mp4", beside=beside)
    if embed:
        if has_mesh:
            found["packed"] = _packed(folder)
        return found
    found["views"], found["clay"] = _pictures(folder, "views"), _pictures(folder, "clay")
    found["poster"] = found["views"][0][0] if found["views"] else None
    if has_mesh:
        found["model"] = f"{folder.name}/{_SCRIPT}"
    found["downloads"] = [
        (text, f"{folder.name}/{name}", f"{run.name}_{folder.name}{Path(name).suffix}")
        for name, text in _DOWNLOADS.items() if name in there
    ]  # fmt: skip
    return found


def _files(run: Path, embed: bool, **files: Path) -> dict[str, str]:
    """Those of a run's files that are there, as links or, to `embed` them, whole."""
    there = {name: file for name, file in files.items() if file.is_file()}
    if not embed:
        return {name: file.relative_to(run).as_posix() for name, file in there.items()}
    return {
        name: f"data:{_KINDS[file.suffix]};base64,{base64_of(file.read_bytes())}"
        for name, file in there.items()
    }


def _pictures(folder: Path, kind: str) -> list[tuple[str, float]]:
    """(file, azimuth in degrees) of a seed's pictures, as far as they are there."""
    found = [(folder / kind / view_name(azimuth), azimuth) for azimuth in AZIMUTHS_DEG]
    return [(f"{folder.name}/{kind}/{file.name}", azimuth) for file, azimuth in found
            if file.is_file()]  # fmt: skip


def _fidelity(scores) -> dict[str, Any]:
    """A seed's rank among the others, the verdict in words, and whether it is a good one."""
    if scores.get("lost"):
        return {"rank": -1, "verdict": f"✗ {scores['lost']}", "good": False}
    if "psnr_db" in scores:
        psnr = scores["psnr_db"]
        return {"rank": psnr or 0, "verdict": f"{_text(psnr, '.1f')} dB", "good": False}
    accepted = scores.get("accepted")
    if accepted is None:
        return {"rank": 0, "verdict": "", "good": False}
    verdict = "✓ accepted" if accepted else "not accepted"
    return {"rank": int(accepted), "verdict": verdict, "good": accepted}


def facts_of(run: str | Path, seed: int) -> list[tuple[str, str]]:
    """(name, value) of all that is known of a seed, as people read it. Raises as `read_metrics`."""
    metrics = read_metrics(run)
    with reading(Path(run) / "metrics.json"):
        scores, folder = metrics["seeds"][str(seed)], seed_folder(run, seed)
        return [("fidelity", _fidelity(scores)["verdict"]), *_details(folder, scores)]


def _details(folder: Path, scores) -> list[tuple[str, str]]:
    """(name, value) of what the large view lists beside the verdict."""
    rows = [("diversity", _text(scores.get("diversity"), ".2f"))]
    if scores.get("neighbours"):
        counts = Counter(scores["neighbours"]).most_common()
        rows.append(("judge's neighbours", ", ".join(f"{name} {n}" for name, n in counts)))
    if "mask_iou" in scores:
        rows.append(("silhouettes, picture", f"IoU {_text(scores['mask_iou'], '.2f')}"))
    rows.append(("steps", _text(scores.get("steps"))))
    if (folder / "mesh.glb").is_file():
        size = (folder / "mesh.glb").stat().st_size
        rows.append(("mesh.glb", f"{size / 1e6:.1f} MB"))
    if (folder / "mesh.json").is_file():
        mesh = read_mesh_report(folder, "faces", "silhouette_iou", "psnr_db")
        rows.append(("faces", f"{mesh['faces']:,}"))
        rows.append(("mesh, silhouettes", f"IoU {_mean(mesh['silhouette_iou']):.2f}"))
        rows.append(("mesh, colours", f"{_mean(mesh['psnr_db']):.1f} dB"))
    return rows + _geometry(scores.get("geometry") or {})


def _geometry(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of what is known of a mesh's geometry."""
    if not found:
        return []
    bump, creased = f"{found['bump_deg']:.0f}°", f"{found['creased_share']:.0%}"
    if found["bump"] is not None:
        bump += f", {found['bump']:.1f} × real ones"
        creased += f", {found['creased']:.1f} × real ones"
    parts = f"{found['parts']}, {'' if found['watertight'] else 'not '}watertight"
    cut = f"{found['self_intersecting']:,}"
    rows = [("bump", bump), ("creased", creased), ("parts", parts), ("faces that cut", cut)]
    if found["clay"] is not None:
        rows.append(("as clay", "✓ accepted" if found["clay"] else "not accepted"))
    return rows


def _write_mesh_script(run: Path, seed: int) -> None:
    """mesh.js, which gives mesh.glb to the page; without a mesh there is none."""
    folder = seed_folder(run, seed)
    script = folder / _SCRIPT
    if not (folder / "mesh.glb").is_file():
        script.unlink(missing_ok=True)
        return
    with atomic_path(script) as temporary:
        temporary.write_text(f'galleryModel({seed},"{_packed(folder)}")\n')


def _packed(folder: Path) -> str:
    """mesh.glb as gzip in base64; equal files give equal text."""
    return base64_of(gzip.compress((folder / "mesh.glb").read_bytes(), mtime=0))


def _seeds(metrics: Mapping[str, Any]) -> list[int]:
    return sorted(map(int, metrics["seeds"]))


def _duration(seconds: float) -> str:
    """ "3 min 5 s", or only seconds below a minute."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _text(value: object, form: str = "") -> str:
    """A value for people."""
    return "–" if value is None else format(value, form)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
