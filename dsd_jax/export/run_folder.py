"""Names of a run's folder and files, and JSON that anything can read.

runs/a-red-house-1a2b3c4d/config.json, metrics.json, seeds.png, clay.png, picture.png
runs/a-red-house-1a2b3c4d/seed_0003/turntable.mp4, views/az045.png, clay/az045.png
"""

import math
from pathlib import Path
from typing import Any

from dsd_jax.files import Damaged, config_hash, read_json, slug

SHEET, CLAY_SHEET, PICTURE = "seeds.png", "clay.png", "picture.png"
# Of a seed, where they have been asked for.
SPLATS = ("splats.ply", "splats.json")


def run_folder(out: str | Path, prompt: str, config: object) -> Path:
    """out/<prompt slug>-<short hash of config>; nothing is made yet.

    The prompt belongs into `config` too: prompts of the same slug then get different folders.
    """
    return Path(out) / f"{slug(prompt)}-{config_hash(config)}"


def seed_folder(run: str | Path, seed: int) -> Path:
    """run/seed_0000 and so on."""
    return Path(run) / f"seed_{seed:04d}"


def seeds_of(run: str | Path) -> list[int]:
    """Numbers of the folders seed_0000 and so on. Raises FileNotFoundError where there are none."""
    folders = Path(run).glob("seed_*")
    seeds = sorted(int(path.name[5:]) for path in folders if path.name[5:].isdigit())
    if not seeds:
        said = "holds no seed_0000 or another seed; give the folder of a finished run"
        raise FileNotFoundError(f"{run} {said}")
    return seeds


def read_config(run: str | Path) -> dict[str, Any]:
    """config.json. Raises FileNotFoundError or ValueError, in one line, as `files.read_json`."""
    return read_json(Path(run) / "config.json")


def read_metrics(run: str | Path) -> dict[str, Any]:
    """metrics.json of a 3D run, where all that is read of it is what it should be.

    Raises FileNotFoundError or ValueError as `files.read_json`.
    """
    path = Path(run) / "metrics.json"
    found = read_json(path, seeds=dict)
    _check(path, found, _OF_RUN)
    _check(path, found.get("fidelity") or {}, {"accepted": _NUMBER})
    _check(path, found.get("seconds") or {}, {"total": _NUMBER})
    for seed, scores in found["seeds"].items():
        if not (seed.isdecimal() and len(seed) <= 10 and isinstance(scores, dict)):
            raise Damaged(path, "its seeds are none")
        _check(path, scores, _OF_SEED)
    return found


def _check(path: Path, found: dict[str, Any], kinds: dict[str, Any]) -> None:
    """Refuse values, where there are any, that are not of their kind, or numbers not finite."""
    for name, kind in kinds.items():
        value = found.get(name)
        endless = isinstance(value, float) and not math.isfinite(value)
        if value is not None and (endless or not isinstance(value, kind)):
            raise Damaged(path, f"what it says of {name} is none")


_NUMBER: Any = float | int
_SCORES = dict.fromkeys(("diversity", "psnr_db", "mask_iou"), _NUMBER)
_OF_RUN = {**_SCORES, "fidelity": dict, "seconds": dict, "lost": list, "interrupted": bool,
           "device": str, "devices": int}  # fmt: skip
_OF_SEED = {**_SCORES, "steps": int, "accepted": bool, "neighbours": list, "geometry": dict,
            "lost": str}  # fmt: skip


def read_mesh_report(folder: str | Path, *names: str) -> dict[str, Any]:
    """mesh.json of a seed's folder, where these of its numbers are what they should be.

    Raises as `files.read_json`.
    """
    path = Path(folder) / "mesh.json"
    found = read_json(path, **{name: _OF_MESH[name] for name in names})
    for name in names:
        numbers = found[name] if isinstance(found[name], list) else [found[name]]
        right = len(numbers) == 3 if name == "origin" else len(numbers) > 0
        if not right or not all(isinstance(number, float | int) for number in numbers):
            raise Damaged(path, f"{name} is no number, or not as many as it should")
    return found


_OF_MESH: dict[str, Any] = {"faces": int, "scale": float | int, "origin": list,
                            "silhouette_iou": list, "psnr_db": list}  # fmt: skip


def view_name(azimuth_deg: float) -> str:
    """az000.png ... az315.png: azimuth in whole degrees, modulo 360."""
    return f"az{round(azimuth_deg) % 360:03d}.png"
