"""The page of a finished run: index.html in its folder, to be opened in a browser from disk.

    python experiments/export_gallery.py runs/a-house-1a2b3c4d

text3d.py and export_mesh.py write it too; this is for older runs, and for the page as one file:
with --single-file gallery.html holds all meshes and videos (about 1 MB a seed), to be sent to
someone or to a phone. It takes a second. A run whose files are not all there, as manifest.json has
them, is refused: the command that made it makes again what is missing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dsd_jax.cli import flags
from dsd_jax.cli.program import refuse
from dsd_jax.export import manifest
from dsd_jax.export.gallery import PAGES, write_gallery


@dataclass(frozen=True)
class Args:
    """Write the gallery of a finished run."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, for instance runs/a-house-1a2b3c4d."""
    single_file: bool = False
    """Write gallery.html, which needs no other file, instead of index.html."""


def main(argv: list[str] | None = None) -> int:
    """Write the page; returns the exit code."""
    try:
        args = flags.cli(Args, argv, __doc__)
        missing = manifest.lacking(args.run, lambda name: Path(name).name not in PAGES)
        if missing:
            raise ValueError(missing)
        print(write_gallery(args.run, args.single_file))
    except (ValueError, OSError) as error:
        return refuse(error)
    return 0
