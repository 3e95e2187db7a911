"""Meshes of a finished run: seed_0000/mesh.glb and so on, to take into other programs.

    python experiments/export_mesh.py runs/a-house-1a2b3c4d --format glb usdz

The surface is where the field's density reaches a threshold, chosen so that the silhouettes of
mesh and field agree best in the run's 8 views. y is up, the longest side is 1 long, and the middle
of the base is at the origin. seed_0000/mesh.json holds the threshold, how well colours and
silhouettes agree, and where in the field's coordinates the mesh lies. Files of other formats that a
seed has from before are made anew too. Of a finished run metrics.json tells of the new meshes, and
clay.png and the gallery, index.html, show them.

Four seeds take 20 seconds on two CPU cores, 5 more where nothing is in the compilation cache yet;
textures are laid out on all cores, a seed on each. Expect silhouettes with an IoU of 0.98 and
colours with a PSNR of 30 dB or more, files of 1 MB with a texture and of half a MB with vertex
colours.
The exit code is 0 when all seeds were exported, 1 when some could not be, 2 for a bad command.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dsd_jax.cli import flags, validate
from dsd_jax.cli.program import refuse
from dsd_jax.engine import mesh_scores
from dsd_jax.engine.seeds import seeds_held
from dsd_jax.export import manifest, usd
from dsd_jax.export.gallery import write_gallery
from dsd_jax.export.mesh import MeshSettings, export_seeds
from dsd_jax.export.model_files import FORMATS
from dsd_jax.export.run_folder import read_config, seed_folder
from dsd_jax.files import reading
from dsd_jax.metrics.judge import AZIMUTHS_DEG, ELEVATION_DEG
from dsd_jax.recipe.parts import CameraSettings
from dsd_jax.rendering.cameras import Camera, ring

INCOMPLETE = 1


@dataclass(frozen=True)
class Args:
    """Turn the fields of a finished run into meshes."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, for instance runs/a-house-1a2b3c4d."""
    format: tuple[Literal["glb", "ply", "obj", "stl", "usdz"], ...] = ("glb",)
    """Which files to write: GLB, OBJ and USDZ hold a texture, PLY colours at the vertices; STL,
    for printing, is 100 mm long; USDZ needs the extra usd."""
    faces: int = MeshSettings.faces
    """The most triangles of a mesh."""
    threshold: str = "auto"
    """Density of the surface, a number; auto finds the one whose silhouettes agree best."""
    smoothing: int = MeshSettings.smoothing
    """Rounds of smoothing, which keeps edges; 0 leaves the surface as it is."""
    vertex_colours: bool = False
    """Colours at the vertices instead of a texture."""
    texture_size: int = 512
    """Side of the texture in pixels."""
    seeds: str = ""
    """0:4, 3 or 1,5,9; left out, all that the folder holds."""


def main(argv: list[str] | None = None) -> int:
    """Parse, check, export; returns the exit code."""
    try:
        args = flags.cli(Args, argv, __doc__)
        seeds, cameras, settings = prepare(args)
    except (ValueError, OSError) as error:
        return refuse(error)
    failed = export_seeds(
        args.run, seeds, cameras, settings, args.format,
        lambda line: print(line, flush=True),
        lambda line: print(f"error: {line}", file=sys.stderr, flush=True),
    )  # fmt: skip
    kinds = (*FORMATS, "mtl", "png", "json")
    written = [
        f"{seed_folder(args.run, seed).name}/mesh.{kind}" for seed in seeds for kind in kinds
    ]
    manifest.renew(args.run, written)
    if (args.run / "metrics.json").is_file():
        try:
            manifest.renew(args.run, mesh_scores.renew(args.run, cameras))
            write_gallery(args.run)
            if missing := manifest.lacking(args.run):
                print(f"warning: {missing}", file=sys.stderr)
        except (ValueError, OSError) as error:
            print(f"error: there is no page of the meshes: {error}", file=sys.stderr)
            return INCOMPLETE
    if failed:
        print(f"{len(failed)} of {len(seeds)} seeds have no mesh", file=sys.stderr)
    print(args.run)
    return INCOMPLETE if failed else 0


def prepare(args: Args) -> tuple[list[int], Camera, MeshSettings]:
    """Check all that can be wrong; the seeds, the cameras of the run's 8 views, and how to do it.

    Raises ValueError or FileNotFoundError with one line for the user.
    """
    cameras = cameras_of(args.run)
    seeds = seeds_held(args.run, args.seeds)
    if not args.format:
        raise ValueError(f"--format names no format; write {', '.join(FORMATS)} or several")
    validate.once("format", args.format)
    there = (seed_folder(args.run, seed) / "mesh.usdz" for seed in seeds)
    if "usdz" in args.format or any(path.is_file() for path in there):
        usd.check()
    if args.faces < 100:
        raise ValueError(f"--faces must be at least 100, not {args.faces}")
    if not 0 <= args.smoothing <= 1000:
        raise ValueError(f"--smoothing must be from 0 to 1000, not {args.smoothing}")
    if not 16 <= args.texture_size <= 8192:
        raise ValueError(f"--texture-size must be from 16 to 8192, not {args.texture_size}")
    settings = MeshSettings(
        faces=args.faces, threshold=threshold_of(args.threshold), smoothing=args.smoothing,
        vertex_colours=args.vertex_colours, texture_size=args.texture_size,
    )  # fmt: skip
    return seeds, cameras, settings


def cameras_of(run: Path) -> Camera:
    """Those of a run's 8 views. Raises ValueError where config.json does not tell them."""
    config = read_config(run)
    with reading(run / "config.json"):
        given = config["recipe"]["camera"]
        camera = CameraSettings(distance=given["distance"], fov_deg=given["fov_deg"])
        return ring(AZIMUTHS_DEG, ELEVATION_DEG, float(camera.distance), float(camera.fov_deg))


def threshold_of(text: str) -> float | None:
    """None for auto, else a positive number."""
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"--threshold must be auto or a positive number, not {text!r}")
    return value
