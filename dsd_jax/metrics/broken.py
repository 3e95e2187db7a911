"""Objects broken on purpose, which the judge must refuse: deterministic, of one object each.

Letters: f triangles, v views, h w pixels. Triangles lie around the origin, the middle of the
object's bounding box; pictures are RGBA in [0, 1] with the colour premultiplied by alpha, from
azimuths that go once around the object.
"""

import itertools

import jax
import numpy as np
from jaxtyping import Float

from dsd_jax.metrics.geometry import welded

_OCTANTS = np.array(list(itertools.product((-1, 1), repeat=3)))

Triangles = Float[np.ndarray, "f 3 3"]
Colours = Float[np.ndarray, "f 3"]
Pictures = Float[np.ndarray, "v h w 4"]


def half(
    triangles: Triangles, colours: Colours, rng: np.random.Generator
) -> tuple[Triangles, Colours]:
    """What lies on one side of the middle: left, right, top, bottom, front or back."""
    return clipped(triangles, colours, int(rng.integers(3)), int(rng.choice([-1, 1])))


def shuffled(
    triangles: Triangles, colours: Colours, rng: np.random.Generator
) -> tuple[Triangles, Colours]:
    """The eight octants change places, none keeps its own."""
    extent = np.abs(triangles).max((0, 1))
    order, places = rng.permutation(8), np.empty(8, int)
    places[order] = np.roll(order, 1)
    return _moved(triangles, colours, (_OCTANTS[places] - _OCTANTS) / 2 * extent)


def exploded(
    triangles: Triangles, colours: Colours, rng: np.random.Generator, gap: float = 0.4
) -> tuple[Triangles, Colours]:
    """The eight octants move apart, by `gap` of the extent; the whole stays in its frame."""
    extent = np.abs(triangles).max((0, 1))
    triangles, colours = _moved(triangles, colours, gap * _OCTANTS * extent)
    return triangles / (1 + gap), colours


def crumpled(triangles: Triangles, rng: np.random.Generator) -> Triangles:
    """Paper: cut until no edge is longer than 0.04 to 0.12, and every corner moved at random."""
    longest = rng.uniform(0.04, 0.12)
    vertices, faces = _cut(triangles, longest)
    step = longest * rng.uniform(0.12, 0.3)
    return (vertices + step * rng.normal(size=vertices.shape))[faces]


def lumpy(triangles: Triangles, rng: np.random.Generator, waves: int = 24) -> Triangles:
    """Dough: moved by a smooth random field, of waves 0.15 to 0.5 long and about 0.03 high."""
    vertices, faces = _cut(triangles, 0.05)
    toward = rng.normal(size=(3, waves))
    toward *= 2 * np.pi / rng.uniform(0.15, 0.5) / np.linalg.norm(toward, axis=0)
    field = np.sin(vertices @ toward + rng.uniform(0, 2 * np.pi, waves))
    height = rng.uniform(0.02, 0.04) / np.sqrt(waves / 2)
    return (vertices + height * field @ rng.normal(size=(waves, 3)))[faces]


def _cut(triangles: Triangles, longest: float):
    """Vertices and faces of the same surface, without edges that are longer."""
    from trimesh.remesh import subdivide_to_size

    mesh = welded(triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3))
    cut = welded(*subdivide_to_size(mesh.vertices, mesh.faces, longest, max_iter=16))
    return cut.vertices, cut.faces


def clipped(
    triangles: Triangles, colours: Colours, axis: int, sign: int
) -> tuple[Triangles, Colours]:
    """The parts of triangles where sign * coordinate >= 0: of each none, one or two triangles."""
    height = sign * triangles[:, :, axis]
    inside = height >= 0
    count = inside.sum(1)
    # Turned so that the corner which is alone on its side comes first.
    alone = np.where(count == 1, inside.argmax(1), (~inside).argmax(1))
    turn = (alone[:, None] + np.arange(3)) % 3
    corners = np.take_along_axis(triangles, turn[..., None], 1)
    height = np.take_along_axis(height, turn, 1)
    apart = height[:, :1] - height[:, 1:]
    part = height[:, :1] / np.where(apart == 0, 1, apart)
    cut = corners[:, :1] + part[..., None] * (corners[:, 1:] - corners[:, :1])
    one, two = count == 1, count == 2
    tip = np.stack([corners[:, 0], cut[:, 0], cut[:, 1]], 1)[one]
    near = np.stack([cut[:, 0], corners[:, 1], corners[:, 2]], 1)[two]
    far = np.stack([cut[:, 0], corners[:, 2], cut[:, 1]], 1)[two]
    kept = [triangles[count == 3], tip, near, far]
    own = [colours[count == 3], colours[one], colours[two], colours[two]]
    return np.concatenate(kept), np.concatenate(own)


def _moved(triangles, colours, shifts: Float[np.ndarray, "8 3"]) -> tuple[Triangles, Colours]:
    """Each octant moved by its own shift."""
    found = []
    for signs, shift in zip(_OCTANTS, shifts, strict=True):
        part = triangles, colours
        for axis, sign in enumerate(signs):
            part = clipped(*part, axis, sign)
        found.append((part[0] + shift, part[1]))
    parts, own = zip(*found, strict=True)
    return np.concatenate(parts), np.concatenate(own)


def noise(rgba: Pictures, other: Pictures, rng: np.random.Generator) -> Pictures:
    """The silhouettes, filled with coloured noise."""
    return _filled(rgba, rng.random(rgba[..., :3].shape))


def plain(rgba: Pictures, other: Pictures, rng: np.random.Generator) -> Pictures:
    """The silhouettes, filled with the object's mean colour."""
    return _filled(rgba, rgba[..., :3].sum((0, 1, 2)) / np.maximum(rgba[..., 3].sum(), 1e-6))


def card(rgba: Pictures, other: Pictures, rng: np.random.Generator) -> Pictures:
    """The first view on a flat card: seen under an angle it is as narrow as its cosine."""
    turns = np.cos(2 * np.pi * np.arange(len(rgba)) / len(rgba))
    sides = rgba[0], rgba[0][:, ::-1]
    return np.stack([_shrunk(sides[int(turn < 0)], 1, abs(turn)) for turn in turns])


def overlapping(rgba: Pictures, other: Pictures, rng: np.random.Generator) -> Pictures:
    """Two objects of 3/4 their size, the one in front of the other, side by side by half."""
    shift = rgba.shape[2] * 3 // 32
    front, back = (np.stack([_shrunk(view, 0.75, 0.75) for view in own]) for own in (rgba, other))
    front, back = np.roll(front, -shift, 2), np.roll(back, shift, 2)
    return front + (1 - front[..., 3:]) * back


def quartered(rgba: Pictures, other: Pictures, rng: np.random.Generator) -> Pictures:
    """The quarters of the box around all silhouettes change places, the same way in all views.

    They go around by one or two, or change with the one beside or above.
    """
    solid = (rgba[..., 3] > 0.5).any(0)
    if not solid.any():
        return rgba
    (top, down), (left, right) = (
        np.flatnonzero(np.any(solid, axis))[[0, -1]] + [0, 1] for axis in (1, 0)
    )
    h, w = (down - top) // 2, (right - left) // 2
    corners = [(top, left), (top, left + w), (top + h, left + w), (top + h, left)]
    result = np.zeros_like(rgba)
    order = ((1, 2, 3, 0), (3, 0, 1, 2), (2, 3, 0, 1), (1, 0, 3, 2), (3, 2, 1, 0))[rng.integers(5)]
    for (row, column), place in zip(corners, order, strict=True):
        to_row, to_column = corners[place]
        part = rgba[:, row : row + h, column : column + w]
        result[:, to_row : to_row + h, to_column : to_column + w] = part
    return result


def empty(rgba: Pictures, other: Pictures, rng: np.random.Generator) -> Pictures:
    """Nothing."""
    return np.zeros_like(rgba)


def _filled(rgba: Pictures, colour: np.ndarray) -> Pictures:
    alpha = rgba[..., 3:]
    return np.concatenate([colour * alpha, alpha], -1)


def _shrunk(view: np.ndarray, height: float, width: float) -> np.ndarray:
    """A picture [h, w, 4] in the middle of an empty one; at least 2 pixels wide."""
    h, w = max(2, round(view.shape[0] * height)), max(2, round(view.shape[1] * width))
    small = np.asarray(jax.image.resize(view, (h, w, 4), "linear"))
    top, left = (view.shape[0] - h) // 2, (view.shape[1] - w) // 2
    result = np.zeros_like(view)
    result[top : top + h, left : left + w] = small
    return result


IN_3D = {"half": half, "shuffled": shuffled, "exploded": exploded}
IN_PICTURES = {"noise": noise, "plain": plain, "card": card, "overlapping": overlapping,
               "quartered": quartered, "empty": empty}  # fmt: skip
# Of triangles alone, which lose their colours.
AS_CLAY = {"crumpled": crumpled, "lumpy": lumpy}
