"""One page over several runs: a row a run, with a view of every seed, scores, and links.

    write_overview("runs", [Row("a house", Path("runs/a-house-1a2b3c4d"), "complete"), ...])

Paths in both files are relative to them.
"""

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

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
    with atomic_path(out / PAGE) as temporary:
        body = "\n".join(map(_row, found))
        temporary.write_text(_TEMPLATE.replace("ROWS", body), encoding="utf-8")
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
        f'<section class="{about["state"]}"><h2>{title}</h2><p>{said}</p>'
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


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


_TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Overview</title>
<style>
:root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }
body { margin: 1rem auto; max-width: 90rem; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: .5rem 0 1rem; }
h2 { display: inline; font-size: 1.1rem; margin-right: .75rem; }
p { display: inline; opacity: .7; }
.failed p { color: #c33; opacity: 1; }
dl { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: .3rem 0; font-size: .9rem; }
dl div { display: flex; gap: .4rem; }
dt { opacity: .7; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.seeds { display: flex; gap: .3rem; overflow-x: auto; }
figure { margin: 0; flex: none; }
video { width: 9rem; height: 9rem; display: block; background: #ccc; }
figcaption { font-size: .8rem; text-align: center; opacity: .7; }
</style>
ROWS
<script>
for (const video of document.querySelectorAll("video")) {
  video.onmouseenter = video.onclick = () => video.play().catch(() => {});
  video.onmouseleave = () => video.load();
}
</script>
</html>
"""
