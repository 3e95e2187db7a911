"""Gaussian splats of a finished run: seed_0000/splats.ply and so on, for programs that show them.

    python experiments/export_splats.py runs/a-house-1a2b3c4d

A fixed number of splats starts on the surface of each seed's field and is fitted to pictures of it
from all around. The file is the PLY that 3D Gaussian Splatting writes, as SuperSplat, viser and
Open3D read it. It lies as mesh.glb does, the longest side 1 long and the middle of the base at the
origin, but has y down, as such files do: programs that do not turn them show it upside down.
seed_0000/splats.json holds how well splats and field agree in the run's 8 views, which no splat was
fitted to, and where in the field's coordinates they lie. The gallery of a finished run offers the
files.
The exit code is 0 when all seeds were exported, 1 when some could not be, 2 for a bad command.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dsd_jax.cli import flags, validate
from dsd_jax.cli.export_mesh import INCOMPLETE, cameras_of
from dsd_jax.cli.program import refuse
from dsd_jax.engine.seeds import seeds_held
from dsd_jax.export import manifest
from dsd_jax.export.field_grid import field_of
from dsd_jax.export.gallery import write_gallery
from dsd_jax.export.run_folder import SPLATS, seed_folder
from dsd_jax.export.scenes import load_scene
from dsd_jax.export.splats import SplatSettings, make_splats
from dsd_jax.files import write_json
from dsd_jax.rendering.cameras import Camera


@dataclass(frozen=True)
class Args:
    """Turn the fields of a finished run into Gaussian splats."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, for instance runs/a-house-1a2b3c4d."""
    seeds: str = ""
    """0:4, 3 or 1,5,9; left out, all that the folder holds."""
    count: int = SplatSettings.count
    """How many splats an object has, 68 bytes each."""
    steps: int = SplatSettings.steps
    """How long they are fitted."""
    out: Path | None = None
    """Folder to write seed_0000/splats.ply and so on into; left out, the run's own."""


def main(argv: list[str] | None = None) -> int:
    """Parse, check, export; returns the exit code."""
    try:
        args = flags.cli(Args, argv, __doc__)
        seeds, cameras, settings = prepare(args)
        failed = [seed for seed in seeds if not _exported(args, seed, cameras, settings)]
        if args.out is None:
            _tell(args.run, seeds)
    except (ValueError, OSError) as error:
        return refuse(error)
    if failed:
        print(f"{len(failed)} of {len(seeds)} seeds have no splats", file=sys.stderr)
    print(args.out or args.run)
    return INCOMPLETE if failed else 0


def prepare(args: Args) -> tuple[list[int], Camera, SplatSettings]:
    """Check all that can be wrong; the seeds, the cameras of the run's 8 views, and how to do it.

    Raises ValueError or FileNotFoundError with one line for the user.
    """
    cameras = cameras_of(args.run)
    seeds = seeds_held(args.run, args.seeds)
    for flag, value, least, most in (
        ("--count", args.count, 100, 200_000), ("--steps", args.steps, 1, 10_000),
    ):  # fmt: skip
        if not least <= value <= most:
            raise ValueError(f"{flag} must be from {least} to {most}, not {value}")
    if args.out is not None:
        validate.writable(args.out)
    return seeds, cameras, SplatSettings(count=args.count, steps=args.steps)


def _exported(args: Args, seed: int, cameras: Camera, settings: SplatSettings) -> bool:
    """Whether a seed's splats could be made and are written."""
    try:
        made = make_splats(field_of(load_scene(seed_folder(args.run, seed))), cameras, settings)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: seed {seed} has no splats: {error}", file=sys.stderr, flush=True)
        return False
    folder = seed_folder(args.out or args.run, seed)
    folder.mkdir(parents=True, exist_ok=True)
    splats, report = (folder / name for name in SPLATS)
    made.save(splats)
    write_json(report, made.report())
    print(f"seed {seed}: {made.summary()}", flush=True)
    return True


def _tell(run: Path, seeds: list[int]) -> None:
    """Of a finished run the list of files, and the page, know of the splats."""
    names = [f"{seed_folder(run, seed).name}/{name}" for seed in seeds for name in SPLATS]
    manifest.renew(run, names)
    if (run / "metrics.json").is_file():
        write_gallery(run)
        if missing := manifest.lacking(run):
            print(f"warning: {missing}", file=sys.stderr)
