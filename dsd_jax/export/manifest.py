"""manifest.json of a run's folder: every file of its results, with size and checksum.

It is written last, and taken away before any of them is written anew: a run is complete where all
that it names is there and whole.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dsd_jax.export.run_folder import CLAY_SHEET, PICTURE, SHEET
from dsd_jax.files import AGAIN, Damaged, read_json, sha256_of, write_json

NAME = "manifest.json"
_OF_RUN = ("config.json", "metrics.json", "index.html", SHEET, CLAY_SHEET, PICTURE)


def write_manifest(run: str | Path, diverged: Mapping[int, int] = MappingProxyType({})) -> Path:
    """List the results that a run's folder holds; returns the list's path.

    Args:
        diverged: seeds that have no files, and after how many steps they were found out.
    """
    run = Path(run)
    names = [name for name in _OF_RUN if (run / name).is_file()]
    for path in sorted(run.glob("seed_*/**/*")):
        if path.is_file() and not path.name.startswith("."):
            names.append(path.relative_to(run).as_posix())
    write_json(run / NAME, {"files": _described(run, names), "diverged": {**diverged}})
    return run / NAME


def drop_manifest(run: str | Path) -> None:
    """Results of this folder are about to be written: it is not complete from now on."""
    (Path(run) / NAME).unlink(missing_ok=True)


def renew(run: str | Path, names: Iterable[str]) -> None:
    """Describe those of the listed files anew, and others that are there now.

    Without a list, or where that is damaged, nothing is done.
    """
    run = Path(run)
    try:
        known = read_json(run / NAME, files=dict)
    except (FileNotFoundError, ValueError):
        return
    names = list(names)
    files = {name: about for name, about in known["files"].items() if name not in names}
    files |= _described(run, [name for name in names if (run / name).is_file()])
    write_json(run / NAME, known | {"files": files})


def faults(run: str | Path, wanted: Callable[[str], bool] = bool) -> list[str]:
    """The listed files that are missing or are not as they were written.

    Args:
        wanted: whether a file of that name matters; all do.

    Raises FileNotFoundError without a list, ValueError where that is damaged.
    """
    run = Path(run)
    files = {name: about for name, about in listed(run).items() if wanted(name)}
    there = [name for name in files if (run / name).is_file()]
    whole = [name for name, now in _described(run, there).items() if now == files[name]]
    return [name for name in files if name not in whole]


def lacking(run: str | Path, wanted: Callable[[str], bool] = bool) -> str:
    """One line for the user that names the `faults` and the mend; "" without any, or a list.

    Raises ValueError where the list is damaged.
    """
    try:
        broken = faults(run, wanted)
    except FileNotFoundError:
        return ""
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    named = ", ".join(broken[:3]) + more
    return f"{run}: missing or damaged: {named}; {AGAIN}" if broken else ""


def listed(run: str | Path) -> dict[str, Any]:
    """The files that are promised, by name. Raises as `faults`."""
    return read_json(Path(run) / NAME, files=dict)["files"]


def diverged(run: str | Path) -> dict[int, int]:
    """The seeds that have no files, and after how many steps that was found. Raises as `faults`."""
    path = Path(run) / NAME
    found = read_json(path, diverged=dict)["diverged"]
    try:
        return {int(seed): int(step) for seed, step in found.items()}
    except (TypeError, ValueError):
        raise Damaged(path, "its seeds are none") from None


def _described(run: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    def one(name: str) -> dict[str, Any]:
        return {"bytes": (run / name).stat().st_size, "sha256": sha256_of(run / name)}

    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(one, names), strict=True))
