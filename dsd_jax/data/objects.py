"""The file objects.npz: a few thousand coloured triangle meshes with captions.

Letters: n objects; v vertices and f faces of all objects one after another, or of one object.
Every object is centred and scaled so that its bounding box's half-diagonal is 1; y is up and the
front faces +z. Coordinates are stored as int16, times 32000.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsd_jax.data.corrections import linear_to_srgb, stored_linear
from dsd_jax.files import shortened
from dsd_jax.rendering.cameras import DISTANCE, FOV_DEG

FOV_Y = float(np.radians(FOV_DEG))
MAX_FACES = 8192
BUCKETS = (256, 512, 1024, 2048, 4096, MAX_FACES)

UNIT = 32000.0
_ARRAYS = ("vertices", "faces", "face_rgb", "vertex_offset", "face_offset")
# The kinds of NumPy's types that they may be of, and the length of a row.
_KINDS = {"vertices": ("i", 3), "faces": ("u", 3), "face_rgb": ("u", 3),
          "vertex_offset": ("i", 0), "face_offset": ("i", 0), "caption": ("U", 0),
          "category": ("U", 0)}  # fmt: skip
_LABELS = ("caption", "category", "symmetric", "colourless", "file_name", "source", "group")


class Item(NamedTuple):
    """One object on its way into a file; see `save_objects`.

    Attributes:
        vertices: [v, 3] float, in any unit and place, y up, front towards +z.
        faces: [f, 3] int.
        face_rgb: [f, 3] uint8, sRGB.
        caption: noun phrase without article, lower case.
        category: the noun for "a ...".
        symmetric: looks nearly the same from all sides.
        colourless: has no colour of its own.
    """

    vertices: np.ndarray
    faces: np.ndarray
    face_rgb: np.ndarray
    caption: str
    category: str
    symmetric: bool = False
    colourless: bool = False
    file_name: str = ""
    source: str = ""
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Objects:
    """All objects of a file, in memory.

    Attributes:
        vertices: [v, 3] int16; faces: [f, 3] uint16; face_rgb: [f, 3] uint8.
        vertex_offset, face_offset: [n + 1] where each object's rows begin.
        caption, category: n strings.
        symmetric, colourless: [n] bool.
        scale: [n] float32, factor that frames an object for every camera (`framing_scale`).
    """

    vertices: np.ndarray
    faces: np.ndarray
    face_rgb: np.ndarray
    vertex_offset: np.ndarray
    face_offset: np.ndarray
    caption: list[str]
    category: list[str]
    symmetric: np.ndarray
    colourless: np.ndarray
    scale: np.ndarray

    def __len__(self) -> int:
        return len(self.caption)

    @property
    def num_faces(self) -> np.ndarray:
        """Triangles of each object, [n]."""
        return np.diff(self.face_offset)

    def triangles(self, i: int) -> np.ndarray:
        """Corners of object i's triangles [f, 3, 3] float32, framed: times scale[i]."""
        start, stop = self.vertex_offset[i : i + 2]
        vertices = self.vertices[start:stop].astype(np.float32) * (self.scale[i] / UNIT)
        return vertices[self.faces[slice(*self.face_offset[i : i + 2])]]

    def colours(self, i: int) -> np.ndarray:
        """sRGB of object i's triangles [f, 3] float32 in [0, 1]."""
        return self.face_rgb[slice(*self.face_offset[i : i + 2])].astype(np.float32) / 255


def load_objects(path: str | Path) -> Objects:
    """Read objects.npz, with the mends of `corrections.py`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it lacks an array, or its arrays do not fit together.
    """
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise FileNotFoundError(
            f"{path} {what}: pack one from your own meshes with experiments/tools/pack_objects.py"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            data: dict = {name: file[name] for name in (*_ARRAYS, *_LABELS)}
    except Exception as error:  # NumPy's and zipfile's readers raise whatever they stumble over
        said = shortened(error)
        raise ValueError(f"{path} is not an objects.npz: {said}; pack it again") from None
    _check(path, data)
    linear = stored_linear(*(data.pop(name) for name in ("source", "group", "file_name")))
    of_face = np.repeat(linear, np.diff(data["face_offset"]))
    data["face_rgb"][of_face] = linear_to_srgb(data["face_rgb"][of_face])
    scale = framing_scale(data["vertices"].astype(np.float32) / UNIT, data["vertex_offset"])
    for name in ("caption", "category"):
        data[name] = [str(text) for text in data[name]]
    return Objects(**data, scale=scale)


def first(objects: Objects, count: int) -> Objects:
    """The first `count` objects, or all where there are fewer."""
    count = min(count, len(objects))
    lists = {name: getattr(objects, name)[:count] for name in (*_LABELS[:4], "scale")}
    offsets = {
        name: getattr(objects, name)[: count + 1] for name in ("vertex_offset", "face_offset")
    }
    return dataclasses.replace(objects, **lists, **offsets)


def held_out(captions: Sequence[str]) -> np.ndarray:
    """Which objects [n] bool the prior of novel views never sees, for its evaluation.

    A twentieth of all captions, chosen by SHA-256, so that it is the same twentieth everywhere.
    """
    numbers = [int(hashlib.sha256(caption.encode()).hexdigest(), 16) for caption in captions]
    return np.array([number % 20 == 0 for number in numbers], bool)


def save_objects(path: str | Path, items: Sequence[Item]) -> None:
    """Write objects.npz, each object centred and scaled to half-diagonal 1.

    Raises:
        ValueError: no items, or one is empty, flat to a point, or beyond the format's limits.
    """
    if not items:
        raise ValueError("there are no objects to write")
    arrays: dict = {
        "vertices": np.concatenate([_quantised(item) for item in items]),
        "faces": np.concatenate([np.asarray(item.faces, np.uint16) for item in items]),
        "face_rgb": np.concatenate([np.asarray(item.face_rgb, np.uint8) for item in items]),
        "vertex_offset": offsets([len(item.vertices) for item in items]),
        "face_offset": offsets([len(item.faces) for item in items]),
    }
    arrays |= {name: np.array([getattr(item, name) for item in items]) for name in _LABELS}
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def framing_scale(
    vertices: np.ndarray, vertex_offset: np.ndarray, fill: float = 0.85, elevation_deg: float = 20.0
) -> np.ndarray:
    """Factor [n] by which each object fills `fill` of the frame, turned to its widest side.

    Over ALL azimuths of the camera (distance 2.7, field of view 40 degrees) at that elevation, the
    largest |x| or |y| of a vertex in normalised device coordinates becomes `fill`; and no vertex
    leaves the unit ball. Exact: with depth 2.7 - k v.b, the condition |k v.r| <= fill tan(fov / 2)
    depth (likewise v.u) is linear in the factor k, and a vertex at radius rho from the axis takes
    all horizontal directions, so that the worst azimuth has a closed form.

    Args:
        vertices: [v, 3] of all objects, centred.
        vertex_offset: [n + 1].
    """
    c = fill * np.tan(FOV_Y / 2)
    sin, cos = np.sin(np.radians(elevation_deg)), np.cos(np.radians(elevation_deg))
    rho, y = np.hypot(vertices[:, 0], vertices[:, 2]), vertices[:, 1]
    sideways = rho * np.hypot(1, c * cos) + c * sin * y
    upwards = rho * abs(c * cos - sin) + y * (cos + c * sin)
    downwards = rho * (c * cos + sin) + y * (c * sin - cos)
    reach = np.maximum(np.maximum(sideways, upwards), downwards) / (c * DISTANCE)
    bound = np.maximum(reach, np.hypot(rho, y))
    return (1 / np.maximum.reduceat(bound, vertex_offset[:-1])).astype(np.float32)


def buckets(num_faces: np.ndarray, sizes: Sequence[int] = BUCKETS) -> list[tuple[int, np.ndarray]]:
    """Objects grouped by triangle count: (padded size, indices) for each size that is used."""
    slot = np.searchsorted(np.asarray(sizes), num_faces)
    groups = ((size, np.flatnonzero(slot == k)) for k, size in enumerate(sizes))
    return [(size, members) for size, members in groups if len(members)]


def padded(
    objects: Objects, indices: Sequence[int] | np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Triangles [b, size, 3, 3] and colours [b, size, 3] of b objects, framed, zero-padded."""
    triangles = np.zeros((len(indices), size, 3, 3), np.float32)
    colours = np.zeros((len(indices), size, 3), np.float32)
    for row, i in enumerate(indices):
        count = objects.num_faces[i]
        triangles[row, :count] = objects.triangles(i)
        colours[row, :count] = objects.colours(i)
    return triangles, colours


def offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where the rows of each of n objects begin, [n + 1] int32, from how many it has."""
    return np.cumsum([0, *counts]).astype(np.int32)


def quantised(vertices: np.ndarray) -> np.ndarray:
    """Vertices [v, 3] as they are stored, int16: centred, half-diagonal 1; it must not be 0."""
    low, high = vertices.min(0), vertices.max(0)
    centred = (vertices - (low + high) / 2) / (np.linalg.norm(high - low) / 2)
    return np.round(centred * UNIT).astype(np.int16)


def _quantised(item: Item) -> np.ndarray:
    """Vertices [v, 3] int16 of a centred object with half-diagonal 1."""
    vertices = np.asarray(item.vertices, np.float64)
    name = item.file_name or item.caption
    if not 0 < len(item.faces) <= MAX_FACES:
        raise ValueError(f"{name} has {len(item.faces)} triangles: 1 to {MAX_FACES} are possible")
    if len(vertices) > 65536:
        raise ValueError(f"{name} has {len(vertices)} vertices: at most 65536 are possible")
    if not np.linalg.norm(np.ptp(vertices, 0)) > 0:
        raise ValueError(f"{name} has no extent, or a coordinate that is not a number")
    return quantised(vertices)


def _check(path, data: dict[str, np.ndarray]) -> None:
    """Raise a ValueError if the arrays of a file do not fit together."""
    for name, (kind, width) in _KINDS.items():
        found = data[name]
        if found.dtype.kind not in kind or found.shape[1:] != ((width,) if width else ()):
            raise ValueError(f"{path}: {name!r} is {found.dtype}{list(found.shape)}; pack it again")
        if not found.ndim:
            raise ValueError(f"{path}: {name!r} is one value and no list; pack it again")
    count = len(data["caption"])
    counts = {name: len(data[name]) for name in _LABELS}
    counts |= {name: len(data[name]) - 1 for name in ("vertex_offset", "face_offset")}
    for name, found in counts.items():
        if found != count or not count:
            raise ValueError(f"{path}: {name!r} is for {found} objects, 'caption' for {count}")
    for rows, offset in (("vertices", "vertex_offset"), ("faces", "face_offset")):
        if data[offset][-1] != len(data[rows]) or (np.diff(data[offset]) <= 0).any():
            raise ValueError(f"{path}: {offset!r} does not cut {rows!r} into non-empty objects")
    if len(data["face_rgb"]) != len(data["faces"]):
        raise ValueError(f"{path}: 'face_rgb' and 'faces' differ in length")
    largest = np.maximum.reduceat(data["faces"].max(1), data["face_offset"][:-1])
    if (largest >= np.diff(data["vertex_offset"])).any():
        raise ValueError(f"{path}: a face names a vertex that its object does not have")
    if (np.diff(data["face_offset"]) > MAX_FACES).any():
        raise ValueError(f"{path}: an object has more than {MAX_FACES} triangles")
