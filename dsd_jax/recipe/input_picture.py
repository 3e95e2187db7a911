"""The picture of an object that a user gives: read, cut out, centred, on a plain background.

As Zero-1-to-3 prepares its pictures, the box around the object is centred and its longer side
becomes 200 / 256 of the frame. In the training pictures of Toybox it is 0.69 to 0.80 for half of
them (median 0.75), so that one number serves both. A camera whose distance d and field of view fov
obey d tan(fov / 2) = 0.983, as Toybox's do (2.7, 40 degrees), then sees an object that reaches
0.77 to either side: it fits into the unit ball, where the field is, and turned it fits as well.

Letters: h w pixels of the file, s side of the prepared picture, k channels. Colours are sRGB.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from dsd_jax.recipe.cut_out import border_of, cut_out
from dsd_jax.recipe.picture_files import SOLID, depth_of, mask_of, open_picture, unit_rgba

FILL = 200 / 256
SMALLEST = 16
# Of opacities and normals what counts as nothing; the share of an object that is worth a word; the
# smallest difference of two depths; the share of an object that passes for all of it.
_FAINT, _MUCH, _LEVEL, _NEARLY = 0.1, 0.2, 1e-6, 0.98


class InputPicture(NamedTuple):
    """A prepared picture.

    Attributes:
        rgb: [s, s, 3] in [0, 1], over the background.
        mask: [s, s] share of a pixel that the object covers.
        depth: [s, s] as the user's file has it, scale and offset aside; 0 outside; None where
            none was given.
        normal: [s, s, 3] unit vectors in the camera's frame, 0 outside; None likewise.
        doubts: what a user should know about the picture and what belongs to it, one phrase each.
        name: of the file.
        elevation_deg: of the camera above the horizon; None where the prior is to estimate it.
        azimuth_deg: of the camera; of several pictures only the differences matter.
        others: more pictures of the same object, see `together`.
    """

    rgb: Float[np.ndarray, "s s 3"]
    mask: Float[np.ndarray, "s s"]
    depth: Float[np.ndarray, "s s"] | None
    normal: Float[np.ndarray, "s s 3"] | None
    doubts: list[str]
    name: str = "picture"
    elevation_deg: float | None = None
    azimuth_deg: float = 0.0
    others: tuple["InputPicture", ...] = ()


def read_picture(
    image: str | Path,
    elevation_deg: float | None = None,
    *,
    mask: str | Path | None = None,
    depth: str | Path | None = None,
    normal: str | Path | None = None,
    recentre: bool = True,
) -> InputPicture:
    """A picture of one object, for `generate`; see `prepare`, which also says what is raised.

    Args:
        elevation_deg: how far above the horizon its camera stood; None has the prior estimate it.
        recentre: centre the object and scale it to `FILL` of the frame.
    """
    fill = FILL if recentre else None
    picture = prepare(image, mask, depth, normal, fill=fill)
    return picture._replace(elevation_deg=elevation_deg)


def prepare(
    image: str | Path,
    mask: str | Path | None = None,
    depth: str | Path | None = None,
    normal: str | Path | None = None,
    *,
    size: int = 256,
    background: float = 1.0,
    fill: float | None = FILL,
) -> InputPicture:
    """Read a picture and what belongs to it.

    The object is where the mask says; without one, where the picture is not transparent; without
    transparency, what stands out from a plain background, see `cut_out`.

    Args:
        image, mask: any file that Pillow reads. A mask is white where the object is, or opaque if
            it has transparency; of one with two levels only, the brighter is the object.
        depth: a grey picture, brighter further away; scale and offset do not matter.
        normal: red, green, blue 0..255 are x to the right, y up, z to the viewer, -1..1.
        size: s.
        background: grey level behind the object.
        fill: share of the frame of the object's longer side; None keeps the picture's framing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one line that says what is wrong with which of them.
    """
    picture = open_picture(image, "image")
    if min(picture.size) < SMALLEST:
        w, h = picture.size
        raise ValueError(f"--image {image} is {w} x {h} pixels; {SMALLEST} x {SMALLEST} at least")

    rgba = unit_rgba(picture)
    rgb, alpha, doubts = rgba[..., :3], rgba[..., 3], []
    if mask is not None:
        alpha = mask_of(open_picture(mask, "mask", picture.size))
        if alpha.max() < SOLID:
            raise ValueError(
                f"--mask {mask} is empty: it has to be white where the object is, and its "
                f"brightest pixel is {alpha.max():.1%} of white"
            )
    elif alpha.max() < SOLID:
        raise ValueError(
            f"--image {image} is transparent everywhere, {alpha.max():.0%} opaque at most: there "
            "is no object in it; --mask says where one is"
        )
    elif alpha.min() > SOLID:
        alpha, doubts = cut_out(rgb)
        if not alpha.any():
            raise ValueError(
                f"no object stands out from the background of --image {image}; give its --mask, "
                "or a picture with transparency"
            )
    top, bottom, left, right = box_of(alpha)
    if max(bottom - top, right - left) < SMALLEST:
        raise ValueError(
            f"the object in --image {image} is {right - left} x {bottom - top} pixels; "
            f"{SMALLEST} at least"
        )
    layers = [rgb, alpha[..., None]]
    if depth is not None:
        far, known = depth_of(open_picture(depth, "depth", picture.size), alpha > SOLID)
        layers.append(far[..., None])
        if known == 0:
            raise ValueError(f"--depth {depth} says no depth of the object: no finite number")
        if known < _NEARLY:
            doubts.append(f"--depth {depth} says no depth at {1 - known:.0%} of the object")
    if normal is not None:
        layers.append(2 * unit_rgba(open_picture(normal, "normal", picture.size))[..., :3] - 1)
    framed = frame(np.concatenate(layers, -1), alpha, size, fill)
    matter = framed[..., 3]
    rest = framed[..., 4:] / np.maximum(matter, 1e-6)[..., None]
    vectors = rest[..., 0 if depth is None else 1 :]
    lengths = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
    solid, doubts = matter > SOLID, doubts + _doubts(alpha)
    if depth is not None and np.ptp(rest[solid, 0]) < _LEVEL:
        doubts.append(f"--depth {depth} says the same depth everywhere")
    if normal is not None:
        doubts += [f"--normal {normal} {doubt}" for doubt in _doubts_of_normals(vectors[solid])]
    return InputPicture(
        rgb=framed[..., :3] + (1 - matter[..., None]) * np.float32(background),
        mask=matter,
        depth=None if depth is None else rest[..., 0],
        normal=None if normal is None else vectors / lengths,
        doubts=doubts,
        name=Path(image).stem,
    )


# ---- doubts ------------------------------------------------------------------------------------


def _doubts(alpha: Float[np.ndarray, "h w"]) -> list[str]:
    """What is doubtful about any mask."""
    from scipy.ndimage import binary_erosion

    solid, inner = alpha > SOLID, np.asarray(binary_erosion(alpha > _FAINT, iterations=2), bool)
    doubts = []
    half = (inner & (alpha < 1 - _FAINT)).sum() / max(inner.sum(), 1)
    if half > _MUCH:
        doubts.append(
            f"{half:.0%} of the object is half transparent, and objects become solid where it is "
            "more than half opaque"
        )
    if solid.mean() < 0.02:
        doubts.append(f"the object is tiny ({solid.mean():.1%} of the picture)")
    if solid.mean() > 0.9:
        doubts.append(f"the object fills {solid.mean():.0%} of the picture")
    elif border_of(solid[..., None]).any():
        doubts.append("the object touches the picture's border and may be cut off")
    return doubts


def _doubts_of_normals(vectors: Float[np.ndarray, "n 3"]) -> list[str]:
    """What is doubtful about the normals of an object's pixels, before they get unit length."""
    away, short = vectors[:, 2] < -_FAINT, np.linalg.norm(vectors, axis=-1) < SOLID
    doubts = []
    if away.mean() > _MUCH:
        doubts.append(f"faces away from the viewer at {away.mean():.0%} of the object")
    if short.mean() > _MUCH:
        doubts.append(f"says no direction at {short.mean():.0%} of the object")
    return doubts


# ---- framing -----------------------------------------------------------------------------------


def box_of(alpha: Float[np.ndarray, "h w"] | Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of what is solid, bottom and right exclusive."""
    rows, columns = (np.flatnonzero((alpha > SOLID).any(axis)) for axis in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def frame(
    layers: Float[np.ndarray, "h w k"],
    alpha: Float[np.ndarray, "h w"],
    size: int,
    fill: float | None = FILL,
) -> Float[np.ndarray, "s s k"]:
    """A square of `size` pixels around the object, channels multiplied by alpha, 0 beyond the file.

    Channel 3 has to be alpha itself, and stays it. Arguments as in `prepare`.
    """
    from PIL import Image

    h, w = alpha.shape
    if fill is None:
        side, middle_y, middle_x = float(max(h, w)), h / 2, w / 2
    else:
        top, bottom, left, right = box_of(alpha)
        side = max(bottom - top, right - left) / fill
        middle_y, middle_x = (top + bottom) / 2, (left + right) / 2
    y, x = middle_y - side / 2, middle_x - side / 2
    before_y, before_x = (max(0, -int(np.floor(start))) for start in (y, x))
    after_y = max(0, int(np.ceil(y + side)) - h)
    after_x = max(0, int(np.ceil(x + side)) - w)
    x0, y0 = x + before_x, y + before_y
    result = np.empty((size, size, layers.shape[-1]), np.float32)
    for channel in range(layers.shape[-1]):
        values = layers[..., channel] if channel == 3 else layers[..., channel] * alpha
        padded = np.pad(values.astype(np.float32), ((before_y, after_y), (before_x, after_x)))
        box = (x0, y0, min(x0 + side, padded.shape[1]), min(y0 + side, padded.shape[0]))
        part = Image.fromarray(padded).resize((size, size), Image.Resampling.BILINEAR, box)
        result[..., channel] = np.asarray(part)
    return result
