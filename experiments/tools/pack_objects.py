"""Pack a folder of meshes into objects.npz, the training data of a prior of your own.

    python experiments/tools/pack_objects.py --folder meshes --out objects.npz --table names.csv

Reads every .glb, .gltf, .obj and .ply file in the folder and below. Each becomes one object: its
bounding box centred, half its diagonal 1, textures baked to one flat colour a triangle, 8,192
triangles at most (more are reduced if the package fast_simplification is installed). y has to be
up and the front to face +z, as glTF has it.

Captions come from the file names ("RedCar_01.glb": "red car", category "car"), or from a CSV file
with the columns name,caption,category,symmetric,colourless, of which all but the first may be left
out or empty. `name` is the file's name or path in the folder, with or without its suffix; symmetric
(looks the same from all sides) and colourless (has no colour of its own) are 0 or 1.
"""

import csv
import dataclasses
import io
import sys
from pathlib import Path

from dsd_jax.cli import flags, validate
from dsd_jax.data.meshes import SUFFIXES, read_mesh
from dsd_jax.data.objects import Item, save_objects
from dsd_jax.files import read_text

_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Pack a folder of meshes into objects.npz."""

    folder: Path
    """Folder of .glb, .gltf, .obj and .ply files."""
    out: Path = Path("objects.npz")
    """File to write."""
    table: Path | None = None
    """CSV file: name,caption,category,symmetric,colourless."""
    z_up: bool = False
    """The files have z up and the front along -y, as Blender has."""
    linear: bool = False
    """Colours in OBJ and PLY files are linear, as Blender writes them (glTF's always are)."""
    skip_bad: bool = False
    """Leave out files that cannot be used, instead of stopping at the first."""


def main(settings: Settings) -> None:
    """Read, label and write; one line a file that is left out."""
    if settings.out.is_dir():
        raise ValueError(f"--out {settings.out} is a folder; give a file: {settings.out / 'x.npz'}")
    validate.writable(settings.out.parent)
    files = find_files(settings.folder)
    rows = read_table(settings.table) if settings.table else {}
    items = []
    for file in files:
        row = _take_row(rows, file.relative_to(settings.folder))
        try:
            item = read_mesh(file, z_up=settings.z_up, linear=settings.linear)
            items.append(labelled(item, row)._replace(group=file.parent.name))
        except ValueError as error:
            if not settings.skip_bad:
                raise
            print(f"left out: {error}", file=sys.stderr)
    if rows:
        raise ValueError(f"{settings.table}: no file is named {next(iter(rows))!r}")
    save_objects(settings.out, items)
    triangles = sum(len(item.faces) for item in items)
    print(f"{settings.out}: {len(items)} objects, {triangles} triangles")


def find_files(folder: Path) -> list[Path]:
    """The mesh files in and below a folder, sorted; those that macOS puts beside them are said.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it holds no mesh file.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    found = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    files = [file for file in found if not file.name.startswith("._")]
    for file in found:
        if file not in files:
            print(f"left out: {file}: macOS's note on a file, no mesh", file=sys.stderr)
    if not files:
        raise ValueError(f"{folder} holds no {', '.join(SUFFIXES)} file")
    return files


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """Rows of the CSV file by name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no UTF-8, has no column "name", or the same name twice.
    """
    if path.is_dir():
        raise ValueError(f"--table {path} is a folder; give a CSV file")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    lines = csv.DictReader(io.StringIO(read_text(path), newline=""))
    rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in lines]
    table = {}
    for row in rows:
        if "name" not in row:
            raise ValueError(f"{path} needs a header with name,caption,category,...")
        if row["name"] in table:
            raise ValueError(f"{path} names {row['name']!r} twice")
        table[row["name"]] = row
    return table


def labelled(item: Item, row: dict[str, str]) -> Item:
    """The item with what its row says; empty cells change nothing."""
    changes: dict = {key: row[key].lower() for key in ("caption", "category") if row.get(key)}
    for key in ("symmetric", "colourless"):
        if row.get(key):
            if row[key].lower() not in _TRUTH:
                raise ValueError(f"{row['name']}: {key} is {row[key]!r}, but has to be 0 or 1")
            changes[key] = _TRUTH[row[key].lower()]
    return item._replace(**changes)


def _take_row(rows: dict, file: Path) -> dict[str, str]:
    """Remove and return the row of a file: by path, path without suffix, name or stem."""
    for name in (file.as_posix(), file.with_suffix("").as_posix(), file.name, file.stem):
        if name in rows:
            return rows.pop(name)
    return {}


if __name__ == "__main__":
    try:
        main(flags.cli(Settings, None, __doc__))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
