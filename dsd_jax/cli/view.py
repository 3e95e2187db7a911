"""Look at finished runs in the browser: all seeds side by side, one of them rendered live.

    python experiments/view.py runs/a-house-1a2b3c4d runs/a-chair-5e6f7a8b

Every run is a row of meshes. Choose one, in the panel or by a click, to see its field itself from
where you look, rendered by this project's own renderer at the resolution and with the samples that
the panel says. Seeds that export_splats.py was run for can be shown as Gaussian splats instead of
meshes. The page comes over one port of this machine, which SSH can forward; the command says how.
Needs `pip install "dsd_jax[viewer]"`. Ctrl-C ends it.

A live picture of 288 x 192 takes 0.2 to 0.3 seconds of one CPU core, and the first one of each
resolution some seconds more, for compiling.
"""

import threading
from collections import Counter
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import tyro

from dsd_jax.cli import flags, validate
from dsd_jax.cli.program import refuse
from dsd_jax.export import manifest, splat_files
from dsd_jax.export.live import load_live
from dsd_jax.export.run_folder import SPLATS, read_mesh_report, seed_folder, seeds_of
from dsd_jax.export.splats import to_world
from dsd_jax.export.viewer import PORT, STEP, Exhibit, Viewer, check_port, how_to_reach
from dsd_jax.files import read_json
from dsd_jax.rendering.splats import Splats

_SHOWN = ("mesh.glb", "mesh.json", *SPLATS)


@dataclass(frozen=True)
class Args:
    """Show the objects of runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Folders of runs, for instance runs/a-house-1a2b3c4d."""
    port: int = PORT
    """Where the browser finds it: http://localhost:PORT."""


def main(argv: list[str] | None = None) -> int:
    """Parse, check, serve until Ctrl-C; returns the exit code."""
    try:
        args = flags.cli(Args, argv, __doc__)
        validate.extra("viser", "view.py", "viewer")
        if not args.runs:
            raise ValueError("no run is named: give its folder, for instance runs/a-house-1a2b3c4d")
        exhibits = [shown for row, run in enumerate(args.runs) for shown in exhibits_of(run, row)]
        for name, count in Counter(exhibit.name for exhibit in exhibits).items():
            if count > 1:
                raise ValueError(f"{name} comes twice; give each run once, and no two of one name")
        check_port(args.port)
    except (ValueError, OSError) as error:
        return refuse(error)
    with Viewer(exhibits, args.port):
        print(how_to_reach(args.port), flush=True)
        wait()
    return 0


def exhibits_of(run: Path, row: int) -> list[Exhibit]:
    """The seeds of a run that have a mesh, side by side in a row of their own.

    Raises FileNotFoundError, with one line for the user, where there are none, ValueError where a
    file of one is damaged.
    """
    missing = manifest.lacking(run, lambda name: Path(name).name in _SHOWN)
    if missing:
        raise ValueError(missing)
    found = [seed for seed in seeds_of(run) if (seed_folder(run, seed) / "mesh.glb").is_file()]
    if not found:
        raise FileNotFoundError(
            f"{run} has no meshes; python experiments/export_mesh.py {run} makes them"
        )
    exhibits = []
    for column, seed in enumerate(found):
        folder = seed_folder(run, seed)
        about = read_mesh_report(folder, "scale", "origin")
        exhibits.append(
            Exhibit(
                f"{run.resolve().name} seed {seed}",
                (STEP * (column - (len(found) - 1) / 2), -STEP * row, 0.0),
                cache(partial(load_live, folder)),
                (folder / "mesh.glb").read_bytes(),
                about["scale"],
                about["origin"],
                splats_of(folder),
            )
        )
    return exhibits


def splats_of(folder: Path) -> Splats | None:
    """A seed's Gaussian splats in world coordinates, None without. Raises ValueError where a file
    of them is damaged."""
    splats, report = (folder / name for name in SPLATS)
    if not splats.is_file():
        return None
    about = read_json(report, scale=float | int, origin=list)
    return to_world(splat_files.load(splats), about["scale"], about["origin"])


def wait() -> None:
    """Until Ctrl-C."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
