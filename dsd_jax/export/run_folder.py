"""Names of a run's folder and files, and JSON that anything can read.

runs/a-red-house-1a2b3c4d/config.json, metrics.json, seeds.png
runs/a-red-house-1a2b3c4d/seed_0003/turntable.mp4, views/az045.png
"""

import hashlib
import json
import math
import re
import unicodedata
from pathlib import Path

import numpy as np

from dsd_jax.export.files import atomic_path


def slug(text: str, limit: int = 48) -> str:
    """`text` as a name that is safe in every file system: a-z, 0-9 and single dashes.

    Accents are dropped and what has no ASCII form is left out; at most `limit` characters, cut at
    a word where possible; "prompt" when nothing is left.
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")
    if len(name) > limit:
        name = (name[: limit + 1].rpartition("-")[0] or name)[:limit]
    return name or "prompt"


def config_hash(config: object) -> str:
    """Eight hexadecimal digits that depend on the values of `config`, not on the order of keys."""
    return hashlib.sha256(_dumps(config).encode()).hexdigest()[:8]


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
        raise FileNotFoundError(f"{run} holds no seed_0000 or another seed; is the run finished?")
    return seeds


def view_name(azimuth_deg: float) -> str:
    """az000.png ... az315.png: azimuth in whole degrees, modulo 360."""
    return f"az{round(azimuth_deg) % 360:03d}.png"


def write_json(path: str | Path, value: object) -> None:
    """Write `value` with sorted keys, atomically. See `plain` for what it may hold."""
    with atomic_path(path) as temporary:
        temporary.write_text(_dumps(value) + "\n", encoding="utf-8")


def plain(value: object) -> object:
    """`value` as JSON types: arrays become lists or numbers, paths strings, nan and inf None.

    Raises TypeError for what has no such form.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist())
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _dumps(value: object) -> str:
    return json.dumps(plain(value), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
