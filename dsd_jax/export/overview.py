"""One page over several runs: a row a run, with a view of every seed, scores, and links.

    write_overview("runs", [Row("a house", Path("runs/a-house-1a2b3c4d"), "complete"), ...])

Paths in both files are relative to them.
"""

import os
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from dsd_jax import __version__
from dsd_jax.export.page import filled
from dsd_jax.export.run_folder import read_metrics, view_name
from dsd_jax.files import atomic_path, write_json

PAGE, NUMBERS = "overview.html", "overview.json"
AZIMUTH_DEG = 45.0


class Row(NamedTuple):
    """A run.

    Attributes:
        title: what was to be made.
        folder: of the run, None where it was not begun.
        state: waiting, complete, interrupted or failed.
        error: why it failed, or what is amiss with a complete one.
    """

    title: str
    folder: Path | None = None
    state: str = "waiting"
    error: str = ""


def write_overview(out: str | Path, rows: Sequence[Row]) -> Path:
    """Write overview.json and overview.html into `out`; returns the page's path.

    The page needs no server: it shows files of the runs' folders by links from `out`.
    """
    out = Path(out)
    found = [_describe(out, row) for row in rows]
    write_json(out / NUMBERS, {"runs": found})
    states = Counter(row.state for row in rows)
    facts = [_counted(len(rows), "run"), *(f"{n} {state}" for state, n in states.items())]
    page = filled(
        "overview.html", ORIGIN=f"dsd_jax {__version__}", FACTS=" · ".join(facts),
        ROWS="\n".join(map(_row, found)),
    )  # fmt: skip
    with atomic_path(out / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out / PAGE


def _describe(out: Path, row: Row) -> dict[str, Any]:
    """A row in JSON types; paths are relative to `out`."""
    about: dict[str, Any] = {"title": row.title, "state": row.state, "error": row.error}
    if row.folder is None:
        return about | {"folder": None, "page": None, "seeds": []}
    page = row.folder / "index.html"
    about["folder"] = _relative(row.folder, out)
    about["page"] = _relative(page if page.is_file() else row.folder, out)
    try:
        metrics = read_metrics(row.folder)
    except (FileNotFoundError, ValueError):
        return about | {"seeds": []}
    about["diversity"] = metrics.get("diversity")
    about["accepted"] = (metrics.get("fidelity") or {}).get("accepted")
    about["seconds"] = (metrics.get("seconds") or {}).get("total")
    return about | {"seeds": sorted(map(int, metrics["seeds"]))}


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path, out)).as_posix()


def _row(about: dict[str, Any]) -> str:
    """The row as HTML."""
    title = escape(about["title"])
    if about["page"]:
        title = f'<a href="{quote(about["page"])}">{title}</a>'
    tiles = "".join(_tile(about["folder"], seed) for seed in about["seeds"])
    said = escape(f"{about['state']}: {about['error']}" if about["error"] else about["state"])
    scores = "".join(
        f"<div><dt>{name}</dt><dd>{text}</dd></div>"
        for name, text in (
            ("diversity", _number(about.get("diversity"), "{:.2f}")),
            ("accepted", _number(about.get("accepted"), "{:.0%}")),
            ("seconds", _number(about.get("seconds"), "{:.0f}")),
        )
        if text
    )
    return (
        f'<section class="run {about["state"]}"><h2>{title}</h2><p class="state">{said}</p>'
        f'<dl>{scores}</dl><div class="seeds">{tiles}</div></section>'
    )


def _tile(folder: str, seed: int) -> str:
    """One view of a seed, which turns under the mouse."""
    own = quote(f"{folder}/seed_{seed:04d}")
    return (
        f'<figure><video src="{own}/turntable.mp4" poster="{own}/views/{view_name(AZIMUTH_DEG)}" '
        f'preload="none" muted loop playsinline></video><figcaption>seed {seed}</figcaption>'
        "</figure>"
    )


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
