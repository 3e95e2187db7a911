"""A model as a file that 3D programs open: GLB, OBJ, PLY, STL or USDZ.

Letters: n vertices, f faces, h w texels. All but STL have y up and the front towards +z, as
glTF wants it, are in no unit of length, and hold sRGB colours; glTF's vertex colours alone are
linear by its standard, and are converted here. STL, for printing, has no colours, z up and the
front towards -y, and a unit is 100 millimetres.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from dsd_jax.export import usd
from dsd_jax.fields.given import GivenShape
from dsd_jax.files import atomic_path

if TYPE_CHECKING:
    from trimesh import Trimesh

FORMATS = ("glb", "ply", "obj", "stl", "usdz")
# Of glTF: ARRAY_BUFFER and ELEMENT_ARRAY_BUFFER.
_VERTICES, _INDICES = 34962, 34963
# Of a model that is one unit long, in an STL.
_MILLIMETRES = 100


class Model(NamedTuple):
    """A triangle mesh with a colour at each vertex and perhaps a texture.

    Attributes:
        vertices: [n, 3].
        faces: [f, 3], counter-clockwise from outside.
        normals: [n, 3] of unit length.
        colours: [n, 3] sRGB.
        uv: [n, 2], (0, 0) being the upper left corner of the texture; None without one.
        texture: [h, w, 3] sRGB, or None.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    normals: Float[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]
    uv: Float[np.ndarray, "n 2"] | None = None
    texture: UInt8[np.ndarray, "h w 3"] | None = None


def placement(
    vertices: Float[np.ndarray, "n 3"], shape: GivenShape | None = None
) -> tuple[float, Float[np.ndarray, "3"]]:
    """(scale, origin) that give the longest side length 1 and put the base's middle at 0.

    Of a shape that was given, those that give its own coordinates.
    """
    if shape is not None:
        return shape.scale, shape.origin
    low, high = vertices.min(0).astype(np.float64), vertices.max(0).astype(np.float64)
    middle = (low + high) / 2
    return float(1 / (high - low).max()), np.array([middle[0], low[1], middle[2]])


def save_model(folder: str | Path, model: Model, formats: Sequence[str] = ("glb",)) -> list[Path]:
    """Write mesh.glb and so on into `folder`, each atomically; returns what was written.

    An OBJ comes with mesh.mtl and mesh.png if it has a texture; a PLY has vertex colours, for few
    programs read textures of it.

    Raises ValueError, before anything is written, where the library that a format needs is missing.
    """
    if "usdz" in formats:
        usd.check()
    return [
        path for name in formats for path in _WRITERS[name](Path(folder) / f"mesh.{name}", model)
    ]


def save_as(path: str | Path, model: Model) -> None:
    """Write one file, atomically, in the format that its name says.

    Raises ValueError where it ends in none of `FORMATS`, or as `save_model`.
    """
    path = Path(path)
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise ValueError(f"{path} must end in .{' or .'.join(FORMATS)}")
    _WRITERS[form](path, model)


def _save_glb(path: Path, model: Model) -> list[Path]:
    """With a material that is rough and not metallic, as it would be (and dark) if none were given:
    the albedo is its base colour, and takes light.
    """
    from PIL import Image
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    material = PBRMaterial(name="surface", metallicFactor=0.0, roughnessFactor=1.0)
    if model.texture is None or model.uv is None:
        visual = TextureVisuals(material=material)
        visual.vertex_attributes["color"] = _opaque(srgb_to_linear(model.colours))
    else:
        material.baseColorTexture = Image.fromarray(model.texture)
        visual = TextureVisuals(uv=model.uv * [1, -1] + [0, 1], material=material)
    data = _trimesh(model, visual).export(
        file_type="glb", include_normals=True, tree_postprocessor=_say_what_buffers_are
    )
    assert isinstance(data, bytes)
    return [_write(path, data)]


def _say_what_buffers_are(gltf: dict[str, Any]) -> None:
    """trimesh does not, and glTF's validator then has a hint for each."""
    for primitive in (part for mesh in gltf["meshes"] for part in mesh["primitives"]):
        for accessor in primitive["attributes"].values():
            gltf["bufferViews"][gltf["accessors"][accessor]["bufferView"]]["target"] = _VERTICES
        indices = gltf["accessors"][primitive["indices"]]["bufferView"]
        gltf["bufferViews"][indices]["target"] = _INDICES


def _save_ply(path: Path, model: Model) -> list[Path]:
    from trimesh.visual import ColorVisuals

    mesh = _trimesh(model, ColorVisuals(vertex_colors=_opaque(model.colours)))
    data = mesh.export(file_type="ply", vertex_normal=True)
    assert isinstance(data, bytes)
    return [_write(path, data)]


def _save_obj(path: Path, model: Model) -> list[Path]:
    """OBJ's v axis points up; without a texture colours follow the coordinates of vertices."""
    written = []
    lines = ["# y is up"]
    rows = np.asarray(model.vertices)
    if model.texture is None:
        rows = np.concatenate([rows, model.colours / 255], 1)
    else:
        written = [path.with_suffix(".png"), path.with_suffix(".mtl")]
        _save_png(written[0], model.texture)
        material = f"newmtl surface\nKd 1 1 1\nKs 0 0 0\nmap_Kd {written[0].name}\n"
        _write(written[1], material.encode())
        lines += [f"mtllib {written[1].name}", "usemtl surface"]
    lines += [f"v {' '.join(f'{x:.6g}' for x in row)}" for row in rows]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in model.normals]
    corner = "{0}//{0}"
    if model.texture is not None and model.uv is not None:
        lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in model.uv]
        corner = "{0}/{0}/{0}"
    lines += ["f " + " ".join(corner.format(i) for i in face) for face in model.faces + 1]
    return [*written, _write(path, ("\n".join(lines) + "\n").encode())]


def _save_stl(path: Path, model: Model) -> list[Path]:
    import trimesh

    x, y, z = np.asarray(model.vertices, np.float64).T * _MILLIMETRES
    mesh = trimesh.Trimesh(np.stack([x, -z, y], 1), model.faces, process=False)
    data = mesh.export(file_type="stl")
    assert isinstance(data, bytes)
    return [_write(path, data)]


_WRITERS = {
    "glb": _save_glb,
    "ply": _save_ply,
    "obj": _save_obj,
    "stl": _save_stl,
    "usdz": usd.save_usdz,
}


def _write(path: Path, data: bytes) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def _save_png(path: Path, texture: np.ndarray) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(texture).save(temporary, optimize=True)


def _trimesh(model: Model, visual: Any) -> "Trimesh":
    """As trimesh holds it; in its texture coordinates v points up."""
    import trimesh

    return trimesh.Trimesh(
        model.vertices, model.faces, vertex_normals=model.normals, visual=visual, process=False
    )


def _opaque(rgb: UInt8[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 4"]:
    return np.concatenate([rgb, np.full((len(rgb), 1), 255, np.uint8)], 1)


def srgb_to_linear(rgb: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """The inverse of the sRGB transfer curve (IEC 61966-2-1), uint8 to uint8."""
    srgb = np.arange(256) / 255
    curve = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.round(255 * curve).astype(np.uint8)[rgb]
