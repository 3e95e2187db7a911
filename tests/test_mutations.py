"""Seeded mutations of what users give and of a run's own files, see `mutations`."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flat_colours import prior, recipe  # noqa: F401
from gallery_run import red_tetrahedron
from mutations import check, checked

from dsd_jax.cli import complete, export_mesh, prompts, view
from dsd_jax.cli.logs import read_log
from dsd_jax.data.meshes import read_mesh
from dsd_jax.engine.generate import about, initial_states
from dsd_jax.engine.objects import Objects
from dsd_jax.engine.plan import make_plan
from dsd_jax.engine.saved import load_objects_of
from dsd_jax.engine.task import make_task
from dsd_jax.export import manifest
from dsd_jax.export.gallery import facts_of, write_gallery
from dsd_jax.export.model_files import save_model
from dsd_jax.export.overview import Row, write_overview
from dsd_jax.export.pictures import save_png
from dsd_jax.export.run_folder import seeds_of
from dsd_jax.files import write_json
from dsd_jax.recipe import input_picture
from dsd_jax.recipe.recipe import changed

pytestmark = pytest.mark.slow


def _each(folder: Path, read) -> None:
    for path in sorted(folder.iterdir()):
        read(path)


def _log(folder: Path) -> None:
    read_log(folder / "log.jsonl")


def _page(folder: Path) -> None:
    manifest.write_manifest(folder)
    write_gallery(folder)


def _facts(folder: Path) -> None:
    for seed in seeds_of(folder):
        facts_of(folder, seed)


def _overview(folder: Path) -> None:
    write_overview(folder.parent, [Row("a red house", folder, "complete")])


# {kind: (the files that are spoilt, what is done with their folder)}
KINDS = {
    "run": (
        ("config.json", "metrics.json", "manifest.json", "log.jsonl", "seed_0003/field.json",
         "seed_0003/mesh.json", "seed_0009/field.safetensors"),
        (lambda folder: complete.is_complete(folder, [9, 3], True), load_objects_of, _log,
         lambda folder: export_mesh.prepare(export_mesh.Args(folder)),
         lambda folder: view.exhibits_of(folder, 0), _page, _facts, _overview),
    ),
    "pictures": (
        ("cup.png", "cup.jpg", "cup.webp"),
        (lambda folder: _each(folder, input_picture.prepare),),
    ),
    "prompts": (("a.txt",), (lambda folder: prompts.read([str(folder / "a.txt")]),)),
    "meshes": (("mesh.glb", "mesh.obj", "mesh.ply"), (lambda folder: _each(
        folder, lambda path: read_mesh(path) if path.suffix[1:] in ("glb", "obj", "ply") else None
    ),)),
}  # fmt: skip


def _run(folder, prior, recipe):  # noqa: F811
    """Two seeds at their start, with meshes that are not theirs."""
    numbers = {"final_samples": 8, "turntable_frames": 2, "turntable_resolution": 8}
    task = make_task(prior, "a red house", changed(recipe, **numbers))
    states = jax.device_get(initial_states(task, [9, 3]))
    latest = {9: {"loss": 1.0}, 3: {"loss": 2.0}}
    objects = Objects(about(task), make_plan(task, [9, 3]), [([9, 3], states)], latest)
    objects.save(folder, meshes=False)
    for own in folder.glob("seed_*"):
        save_model(own, red_tetrahedron())
        numbers = {"faces": 4, "silhouette_iou": [0.9], "psnr_db": [30.0], "scale": 1.0}
        write_json(own / "mesh.json", numbers | {"origin": [0.0, 0.0, 0.0]})
    (folder / "log.jsonl").write_text('{"step": 1, "seconds": 0.5, "seeds": {"9": {"loss": 1}}}\n')


def _pictures(folder):
    from PIL import Image

    picture = np.full((48, 48, 3), 1.0)
    picture[12:36, 16:32] = [0.8, 0.2, 0.1]
    save_png(folder / "cup.png", picture)
    for kind in ("jpg", "webp"):
        Image.open(folder / "cup.png").save(folder / f"cup.{kind}")


def _prompts(folder):
    (folder / "a.txt").write_text("# what to make\na house\na chair  # with legs\n\nune théière\n")


def _meshes(folder):
    save_model(folder, red_tetrahedron(), ["glb", "obj", "ply"])


@pytest.mark.parametrize("kind", KINDS)
def test_mutations_are_read_or_refused_in_one_line(kind, tmp_path, request):
    source = tmp_path / "source"
    source.mkdir()
    if kind == "run":
        _run(source, request.getfixturevalue("prior"), request.getfixturevalue("recipe"))
    else:
        {"pictures": _pictures, "prompts": _prompts, "meshes": _meshes}[kind](source)
    checked(__file__, kind, source, tmp_path / "spoilt")


if __name__ == "__main__":
    check(sys.argv[1], *KINDS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]))
