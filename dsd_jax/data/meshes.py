"""Reading a GLB, OBJ or PLY file as one flatly coloured object.

Letters: v vertices, f faces, p sample points on a face. Textures, materials and vertex colours
all become one sRGB colour a face. glTF's factors and vertex colours are linear by its standard;
those of OBJ and PLY are taken for sRGB unless the caller knows better (Blender writes linear).
"""

import re
from pathlib import Path

import numpy as np

from dsd_jax.data import mesh_files
from dsd_jax.data.corrections import linear_to_srgb
from dsd_jax.data.objects import MAX_FACES, Item

SUFFIXES = (*mesh_files.GLTF, ".obj", ".ply")
_WHITE = np.array([204, 204, 204], np.uint8)
# Barycentric coordinates of the points whose texture colours are averaged.
_POINTS = np.array([[2, 2, 2], [4, 1, 1], [1, 4, 1], [1, 1, 4]]) / 6


def read_mesh(path: str | Path, *, z_up: bool = False, linear: bool = False) -> Item:
    """The whole scene of a file as one object; caption and category come from its name.

    Args:
        path: of a .glb, .gltf, .obj or .ply file.
        z_up: turn the file's z axis up (and its -y axis to the front).
        linear: the colours of an OBJ or PLY file are linear.

    Raises:
        ValueError: unreadable (see `mesh_files.check`), without triangles, with a coordinate that
            is no number, or not to be simplified to `MAX_FACES` of them.
    """
    import trimesh

    path = Path(path)
    linear = linear or path.suffix.lower() in mesh_files.GLTF
    try:
        mesh_files.check(path)
        scene = trimesh.load_scene(path, process=False)
        for part in scene.geometry.values():
            if isinstance(part, trimesh.Trimesh):
                _check_coordinates(part.vertices[part.faces])
                if path.suffix.lower() not in mesh_files.GLTF:
                    part.process()
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh)]
        coloured = [(part, *_face_colours(part, linear)) for part in parts if len(part.faces)]
    except Exception as error:  # trimesh's readers raise whatever they stumble over
        raise ValueError(f"{path.name} is not readable: {mesh_files.why(error)}") from None
    if not coloured:
        raise ValueError(f"{path.name} holds no triangles")
    offsets = np.cumsum([0, *(len(part.vertices) for part, _, _ in coloured)])
    vertices = np.concatenate([part.vertices for part, _, _ in coloured])
    faces = np.concatenate(
        [part.faces + start for (part, _, _), start in zip(coloured, offsets, strict=False)]
    )
    rgb = np.concatenate([colours for _, colours, _ in coloured])
    vertices, faces, rgb = _cleaned(path.name, vertices, faces, rgb)
    vertices, faces, rgb = _few_enough(path.name, vertices, faces, rgb)
    if z_up:
        vertices = vertices[:, [0, 2, 1]] * [1, 1, -1]
    caption, category = names_from_file(path.stem)
    colourless = not any(defined for _, _, defined in coloured)
    return Item(vertices, faces, rgb, caption, category, False, colourless, path.name)


def names_from_file(stem: str) -> tuple[str, str]:
    """Caption and category of a file name: "RedCar_01" gives "red car" and "car"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_\d]+", " ", stem)
    caption = " ".join(spaced.lower().split()) or stem.lower()
    head = re.split(r" (?:with|in|on|of|and) ", caption)[0]
    return caption, head.split()[-1]


def _check_coordinates(corners) -> None:
    """Raises ValueError for what trimesh would drop, and the triangles with it."""
    if np.shape(corners)[1:] != (3, 3):
        raise ValueError("its vertices need three coordinates each")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.asarray(corners, np.float32)).all():
            raise ValueError("it holds a coordinate that is no number, or far too large")


def _cleaned(name: str, vertices, faces, rgb):
    """Without flat faces and without vertices that no face names."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    solid = np.linalg.norm(normal, axis=1) > 0
    if not np.isfinite(vertices).all() or not solid.any():
        raise ValueError(f"{name} holds no triangles with an area, or a coordinate is no number")
    used, inverse = np.unique(faces[solid], return_inverse=True)
    return vertices[used], inverse.reshape(-1, 3), rgb[solid]


def _few_enough(name: str, vertices, faces, rgb):
    """Simplified to `MAX_FACES`; a new face takes the colour of the old one nearest to it."""
    if len(faces) <= MAX_FACES:
        return vertices, faces, rgb
    import fast_simplification
    from scipy.spatial import KDTree

    new_vertices, new_faces = fast_simplification.simplify(
        vertices.astype(np.float32),
        faces.astype(np.int32),
        target_reduction=1 - (MAX_FACES - 8) / len(faces),
    )[:2]
    if len(new_faces) > MAX_FACES:
        raise ValueError(f"{name} could not be simplified to {MAX_FACES} triangles")
    tree = KDTree(vertices[faces].mean(1))
    return _cleaned(
        name, new_vertices, new_faces, rgb[tree.query(new_vertices[new_faces].mean(1))[1]]
    )


def _face_colours(mesh, linear: bool) -> tuple[np.ndarray, bool]:
    """sRGB [f, 3] uint8 of a trimesh, and whether the file gave any colour."""
    visual = mesh.visual
    if visual.kind == "texture":
        return _material_colours(mesh, visual.material, linear)
    if visual.kind == "face":
        colours = np.asarray(visual.face_colors)[:, :3]
    elif visual.kind == "vertex":
        corners = np.asarray(visual.vertex_colors)[:, :3][mesh.faces]
        colours = np.round(corners.astype(np.float64).mean(1)).astype(np.uint8)
    else:
        return np.tile(_WHITE, (len(mesh.faces), 1)), False
    return linear_to_srgb(colours) if linear else colours, True


def _material_colours(mesh, material, linear: bool) -> tuple[np.ndarray, bool]:
    """Texture (always sRGB) times factor, averaged over a few points of each face."""
    factor = getattr(material, "baseColorFactor", None)
    factor = getattr(material, "diffuse", None) if factor is None else factor
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    factor = np.full(3, 255, np.uint8) if factor is None else np.asarray(factor)[:3]
    factor = linear_to_srgb(factor) if linear else factor
    uv = getattr(mesh.visual, "uv", None)
    if image is None or uv is None:
        return np.tile(factor, (len(mesh.faces), 1)).astype(np.uint8), True
    pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    at = np.einsum("pk,fki->fpi", _POINTS, np.asarray(uv)[mesh.faces])
    x = np.floor(at[..., 0] % 1 * width).astype(int) % width
    y = np.floor((1 - at[..., 1]) % 1 * height).astype(int) % height
    mean = pixels[y, x].astype(np.float64).mean(1)
    return np.round(mean * factor / 255).astype(np.uint8), True
