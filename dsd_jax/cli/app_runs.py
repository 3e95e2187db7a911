"""The runs that `dsd app` shows: those in its folder, whoever made them; and their files.

A visitor names a run, a seed and a kind of file, never a path: what is handed out is a result of a
run, or nothing.
"""

import re
from pathlib import Path
from typing import NamedTuple

from dsd_jax.cli import lock
from dsd_jax.export.gallery import title_of
from dsd_jax.export.run_folder import SHEET, read_config, read_metrics, seed_folder

MODEL = "mesh.glb"
DOWNLOADS = (MODEL, "mesh.stl", "field.safetensors")
_NAME = re.compile(r"[a-z0-9-]{1,64}-[0-9a-f]{8}")


class Run(NamedTuple):
    """A run.

    Attributes:
        name: of its folder.
        title: what was to be made.
        state: growing, complete or unfinished.
        seeds: of which there are results.
    """

    name: str
    title: str
    state: str
    seeds: list[int]

    @property
    def label(self) -> str:
        """For a list."""
        return f"{self.title} · {len(self.seeds)} seeds · {self.state} · {self.name[-8:]}"


def runs_of(out: Path) -> list[Run]:
    """The newest first."""
    found = []
    for folder in out.glob("*"):
        try:
            found.append(((folder / "config.json").stat().st_mtime, read(out, folder.name)))
        except (OSError, ValueError):
            continue  # no run
    return [run for _, run in sorted(found, reverse=True)]


def read(out: Path, name: object) -> Run:
    """A run by the name of its folder. Raises ValueError, with one line, where there is none."""
    folder = out / str(name)
    if not _NAME.fullmatch(str(name)) or folder.is_symlink() or not folder.is_dir():
        raise ValueError(f"there is no run of the name {f'{name!r}'[:80]}")
    try:
        config = read_config(folder)
        _, _, title = config["recipe"], config["seeds"], str(title_of(config))
    except (FileNotFoundError, LookupError):
        raise ValueError(f"{name} is no 3D run") from None
    try:
        metrics = read_metrics(folder)
        seeds, whole = sorted(map(int, metrics["seeds"])), not metrics.get("interrupted")
    except FileNotFoundError:
        seeds, whole = [], False
    try:
        lock.refuse_held(folder)
    except lock.Held:
        return Run(folder.name, title, "growing", seeds)
    return Run(folder.name, title, "complete" if whole else "unfinished", seeds)


def sheet_of(out: Path, run: Run) -> Path | None:
    """The contact sheet, as far as it has grown."""
    return _own(out / run.name, out / run.name / SHEET)


def files_of(out: Path, run: Run, seed: object) -> dict[str, Path]:
    """{"mesh.glb": ...}: what there is of a seed. Raises ValueError where there is no such seed."""
    if str(seed) not in map(str, run.seeds):
        raise ValueError(f"{run.name} has no seed {f'{seed!r}'[:40]}")
    own = seed_folder(out / run.name, int(str(seed)))
    found = {name: _own(out / run.name, own / name) for name in DOWNLOADS}
    return {name: path for name, path in found.items() if path is not None}


def _own(folder: Path, file: Path) -> Path | None:
    """A file, where it is there and, links followed, in its run's folder."""
    inside = file.is_file() and file.resolve().is_relative_to(folder.resolve())
    return file if inside else None
