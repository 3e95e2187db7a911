"""Names of a run's folder and files, and JSON that anything can read.

runs/a-red-house-1a2b3c4d/config.json, metrics.json, seeds.png, clay.png
runs/a-red-house-1a2b3c4d/seed_0003/turntable.mp4, views/az045.png, clay/az045.png
"""

from pathlib import Path

from dsd_jax.files import config_hash, slug

SHEET, CLAY_SHEET = "seeds.png", "clay.png"


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
