"""A seed's field as a textured mesh, and how far the two agree in pictures.

    cameras = ring(AZIMUTHS_DEG, ELEVATION_DEG, distance=2.7, fov_deg=40)
    failed = export_seeds("runs/a-house-1a2b3c4d", [0, 1], cameras, formats=("glb", "obj"))

Letters: v views, n vertices.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from einops import reduce
from jaxtyping import Bool, Float, Int

from dsd_jax.export import texture
from dsd_jax.export.charts import Atlas, unwrap
from dsd_jax.export.field_grid import (
    ExportedField,
    density_grid,
    field_of,
    field_views,
    occupancy_of,
)
from dsd_jax.export.isosurface import CLOSINGS, best_surface, isosurface, vertex_normals
from dsd_jax.export.model_files import FORMATS, Model, placement, save_as, save_model
from dsd_jax.export.pictures import to_uint8
from dsd_jax.export.raster import sample_texture, visible
from dsd_jax.export.run_folder import seed_folder
from dsd_jax.export.scenes import load_scene
from dsd_jax.export.smoothing import smooth_and_simple
from dsd_jax.files import write_json
from dsd_jax.rendering.agreement import iou, psnr
from dsd_jax.rendering.cameras import Camera, camera_at
from dsd_jax.rendering.occupancy import OccupancyGrid
from dsd_jax.rendering.scene import GREY

# Seeds that are made at the same time, on as many cores.
MOST_WORKERS = 16


@dataclass(frozen=True)
class MeshSettings:
    """How a mesh is made.

    Attributes:
        faces: the most triangles it may have.
        threshold: density of the isosurface; None finds the one that agrees best.
        closing: pores up to twice so many cells wide are closed; None finds the widest that does
            silhouettes no harm.
        smoothing: rounds, see `export.smoothing`; 0 leaves the isosurface as it is.
        vertex_colours: instead of a texture.
        texture_size: side of the texture in texels.
        view_size, samples: of the pictures in which field and mesh are compared.
    """

    faces: int = 10_000
    threshold: float | None = None
    closing: int | None = None
    smoothing: int = 10
    vertex_colours: bool = False
    texture_size: int = 512
    view_size: int = 128
    samples: int = 32


class MeshResult(NamedTuple):
    """A mesh and what is known of it.

    Attributes:
        model: of unit size, the middle of its base at the origin; of a shape that was given the
            file's own triangles and coordinates, but upright, sheets from both sides.
        scale, origin: model = scale * (world - origin).
        threshold: density of the isosurface; None of a shape that was given.
        closing: radius in cells up to which pores were closed.
        removed: how many floating pieces were left out.
        iou: [v] of the silhouettes of field and mesh.
        psnr: [v] of their colours before grey, decibels.
    """

    model: Model
    scale: float
    origin: Float[np.ndarray, "3"]
    threshold: float | None
    closing: int
    removed: int
    iou: Float[np.ndarray, "v"]
    psnr: Float[np.ndarray, "v"]

    def save(self, path: str | Path) -> None:
        """Write it as `path`: .glb, .obj, .ply or .stl. Raises ValueError for another."""
        save_as(path, self.model)

    def summary(self) -> str:
        """One line for people."""
        pieces = f", {self.removed} floating pieces left out" if self.removed else ""
        surface = f"threshold {self.threshold:.3g}" if self.threshold else "the given shape"
        return (
            f"{surface}, {len(self.model.faces)} faces, "
            f"silhouettes IoU {self.iou.mean():.3f}, colours {self.psnr.mean():.1f} dB{pieces}"
        )

    def report(self) -> dict[str, Any]:
        """What mesh.json holds."""
        return {
            "threshold": self.threshold,
            "closing": self.closing,
            "faces": len(self.model.faces),
            "removed_pieces": self.removed,
            "silhouette_iou": self.iou.tolist(),
            "psnr_db": self.psnr.tolist(),
            "scale": self.scale,
            "origin": self.origin.tolist(),
        }


def export_seeds(
    run: str | Path,
    seeds: Sequence[int],
    cameras: Camera,
    settings: MeshSettings = MeshSettings(),
    formats: Sequence[str] = ("glb",),
    say: Callable[[str], None] = print,
    complain: Callable[[str], None] = print,
    field: Any = None,
) -> list[int]:
    """Write mesh.glb and so on, and mesh.json, beside the field.safetensors of each seed's folder.

    Several seeds are made at the same time. The run's `field` must be given if it is of your own.
    Files of other formats that are there are written anew too: all of a folder are of one mesh.

    One line a seed, in their order: to `say` what was made, to `complain` why nothing was (see
    `load_scene` and `make_mesh`); nothing is written then. Returns the seeds without a mesh.
    """
    with exporting(run, seeds, cameras, settings, formats, field) as finish:
        return finish(say, complain)


# (say, complain) -> the seeds without a mesh
Finish = Callable[[Callable[[str], None], Callable[[str], None]], list[int]]


@contextmanager
def exporting(
    run: str | Path,
    seeds: Sequence[int],
    cameras: Camera,
    settings: MeshSettings = MeshSettings(),
    formats: Sequence[str] = ("glb",),
    field: Any = None,
) -> Iterator[Finish]:
    """Begin `export_seeds` on other threads; yields a function that waits for its end.

    At the context's end the seeds that have not been begun are given up.
    """

    def make(seed: int) -> str:
        folder = seed_folder(run, seed)
        result = make_mesh(field_of(load_scene(folder, field)), cameras, settings)
        there = [name for name in FORMATS if (folder / f"mesh.{name}").is_file()]
        save_model(folder, result.model, [*dict.fromkeys([*formats, *there])])
        write_json(folder / "mesh.json", result.report())
        return result.summary()

    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_WORKERS))
    begun = [pool.submit(make, seed) for seed in seeds]

    def finish(say: Callable[[str], None], complain: Callable[[str], None]) -> list[int]:
        failed: list[int] = []
        for seed, mesh in zip(seeds, begun, strict=True):
            try:
                say(f"seed {seed}: {mesh.result()}")
            except (ValueError, FileNotFoundError) as error:
                complain(f"seed {seed} has no mesh: {error}")
                failed.append(seed)
        return failed

    try:
        yield finish
    finally:
        pool.shutdown(cancel_futures=True)


def make_mesh(
    field: ExportedField, cameras: Camera, settings: MeshSettings = MeshSettings()
) -> MeshResult:
    """Mesh of a field; `cameras`, v of them stacked, are those that the two are compared from.

    Raises ValueError where the field is empty, or cannot be told in so few faces.
    """
    surface = surface_of(field, cameras, settings)
    return _mesh(surface, _charts(surface, settings), cameras, settings)


class Surface(NamedTuple):
    """A field's surface in world coordinates, and what is to be seen of the field.

    Attributes:
        threshold, closing, removed: as in MeshResult.
        rgb: before grey.
        mask: where the field hides more than half of the background.
        grid: where it is sampled.
    """

    field: ExportedField
    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    normals: Float[np.ndarray, "n 3"]
    threshold: float | None
    closing: int
    removed: int
    rgb: Float[np.ndarray, "v h w 3"]
    mask: Bool[np.ndarray, "v h w"]
    grid: OccupancyGrid


def surface_of(field: ExportedField, cameras: Camera, settings: MeshSettings) -> Surface:
    density = density_grid(field)
    grid = occupancy_of(density)
    rgb, opacity = field_views(field, grid, cameras, settings.view_size, settings.samples)
    mask = opacity > 0.5
    if field.shape is not None:
        vertices, faces = field.shape.vertices, field.shape.faces
        threshold, closing, removed = None, 0, 0
    else:
        pores = (0,) if field.solid else CLOSINGS
        radii = pores if settings.closing is None else (settings.closing,)
        found = best_surface(density, mask, cameras, radii, settings.threshold)
        density, closing, threshold = found
        vertices, faces, removed = isosurface(density, threshold)
        vertices, faces = smooth_and_simple(vertices, faces, settings.smoothing, settings.faces)
    normals = vertex_normals(vertices, faces)
    return Surface(field, vertices, faces, normals, threshold, closing, removed, rgb, mask, grid)


def _charts(surface: Surface, settings: MeshSettings) -> Atlas | None:
    """None where no texture is wanted."""
    if settings.vertex_colours:
        return None
    return unwrap(surface.vertices, surface.faces, surface.normals, settings.texture_size)


def _mesh(
    surface: Surface, atlas: Atlas | None, cameras: Camera, settings: MeshSettings
) -> MeshResult:
    model = _coloured(surface, atlas, settings.texture_size)
    views, covered = mesh_views(model, cameras, settings.view_size)
    scale, origin = placement(surface.vertices, surface.field.shape)
    return MeshResult(
        model=model._replace(vertices=(model.vertices - origin) * scale),
        scale=scale,
        origin=origin,
        threshold=surface.threshold,
        closing=surface.closing,
        removed=surface.removed,
        iou=iou(covered, surface.mask),
        psnr=psnr(views, surface.rgb),
    )


def _coloured(surface: Surface, atlas: Atlas | None, size: int) -> Model:
    """Model in world coordinates."""
    field, vertices, faces, normals = surface[:4]
    colours = to_uint8(texture.surface_albedo(field, vertices, normals))
    if atlas is None:
        return Model(vertices, faces, normals, colours)
    picture = texture.bake(field, vertices, normals, atlas, size)
    vertices, normals, colours = (x[atlas.source] for x in (vertices, normals, colours))
    return Model(vertices, atlas.faces, normals, colours, atlas.uv, picture)


def mesh_views(
    model: Model, cameras: Camera, size: int, supersample: int = 2
) -> tuple[Float[np.ndarray, "v h w 3"], Bool[np.ndarray, "v h w"]]:
    """Unlit pictures of a model in world coordinates before grey, and where it covers pixels.

    Triangles seen from behind are not drawn, as in viewers.
    """
    fine, views, covered = size * supersample, [], []
    for i in range(cameras.fov_y.shape[0]):
        camera = camera_at(cameras, i)
        found = visible(model.vertices, model.faces, camera, fine)
        corners = model.faces[found.face]
        picture = np.full((fine * fine, 4), [GREY] * 3 + [0.0])
        if model.texture is None or model.uv is None:
            rgb = np.einsum("mk,mki->mi", found.weights, model.colours[corners] / 255)
        else:
            uv = np.einsum("mk,mki->mi", found.weights, model.uv[corners])
            rgb = sample_texture(model.texture, uv)
        picture[found.pixel] = np.pad(rgb, ((0, 0), (0, 1)), constant_values=1)
        blocks = reduce(picture, "(h a w b) c -> h w c", "mean", h=size, w=size, a=supersample)
        views.append(blocks[..., :3])
        covered.append(blocks[..., 3] > 0.5)
    return np.stack(views), np.stack(covered)
