"""Files of pictures, masks and depths as arrays, whatever their mode."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from dsd_jax.models import foreign

LARGEST = 1024
# An object is where more than this of a pixel is opaque.
SOLID = 0.5
# What a float of depth means "nothing is here" from on: Blender writes 1e10.
_NOTHING = 1e9
_HEIC = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1")


def open_picture(path: str | Path, flag: str, size: tuple[int, int] | None = None):
    """A picture file, upright as its EXIF data say; of several pictures in a file the first.

    Raises as `input_picture.prepare` does; `flag` names the file, `size` is the (width, height) it
    must have.
    """
    from PIL import Image

    if Path(path).is_dir():
        raise ValueError(f"--{flag} {path} is a folder; give a picture")
    if not Path(path).is_file():
        raise FileNotFoundError(f"--{flag} {path} does not exist")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as file:
            file.load()
            image = _upright(file)
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        what = _beginning(Path(path))
        why = f"it is {what}" if what else error
        raise ValueError(f"--{flag} {path} cannot be read as a picture: {why}") from None
    if size and image.size != size:
        found, given = (f"{w} x {h}" for w, h in (image.size, size))
        raise ValueError(f"--{flag} {path} is {found} pixels, but --image is {given}")
    return image


def _upright(image):
    """A loaded picture as its EXIF data say it stands, or as it is where they cannot be read."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # of EXIF data, too
        return image.copy()


def unit_rgba(image) -> Float[np.ndarray, "h w 4"]:
    """A picture in any mode of Pillow, in [0, 1], at most `LARGEST` pixels a side.

    It is opaque where it says nothing of transparency. Greys of 16 and more bits keep their depth.
    """
    if image.mode[0] not in "IF":
        transparent = image.has_transparency_data
        image = image.convert("RGBA" if transparent else "RGB")
        image.thumbnail((LARGEST, LARGEST))
        values = np.asarray(image, np.float32) / 255
        return values if transparent else np.dstack([values, np.ones_like(values[..., 0])])
    values = np.nan_to_num(np.asarray(image, np.float32))
    ranges = (1, 255, 65535, 2**32) if image.mode == "F" else (65535, 2**32)
    grey = np.clip(values / next((m for m in ranges if values.max() <= m), values.max()), 0, 1)
    clear = image.info.get("transparency")
    grey, alpha = (_at_most(layer) for layer in (grey, values != clear))
    return np.dstack([grey, grey, grey, alpha])


def mask_of(image) -> Float[np.ndarray, "h w"]:
    """Opacity where that says anything, else brightness; of two levels the brighter one is 1.

    A picture that is nowhere more than half transparent says nothing by it.
    """
    from PIL import Image

    alpha = unit_rgba(image)[..., 3]
    if alpha.min() <= SOLID:
        return alpha
    values = np.asarray(image if image.mode[0] in "IF" else image.convert("L"))
    low, high = values.min(), values.max()
    if low < high and ((values == low) | (values == high)).all():
        image = Image.fromarray((255 * (values == high)).astype(np.uint8))
    return unit_rgba(image)[..., :3].mean(-1)


def depth_of(image, inside: Bool[np.ndarray, "h w"]) -> tuple[Float[np.ndarray, "h w"], float]:
    """Depth in [0, 1], and the share of the object where the file says it.

    Integers of 16 and more bits and floats run from 0 to 1 between the object's own least and most.
    Floats say nothing where they are no finite number or `_NOTHING` and more; the nearest that is
    said stands there.

    Args:
        inside: where the object is, of the size that `unit_rgba` gives.
    """
    from scipy.ndimage import distance_transform_edt

    if image.mode[0] not in "IF":
        return unit_rgba(image)[..., :3].mean(-1), 1.0
    values = np.asarray(image, np.float32)
    said = np.isfinite(values) & ((image.mode != "F") | (np.abs(values) < _NOTHING))
    values, share = (_at_most(layer) for layer in (np.where(said, values, 0), said))
    known = share > 1 / 2
    if not (known & inside).any():
        return np.zeros_like(values), 0.0
    values = values / np.maximum(share, 1 / 2)
    low, high = values[known & inside].min(), values[known & inside].max()
    unit = np.clip((values - low) / max(high - low, 1e-20), 0, 1)
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return unit[tuple(np.asarray(nearest))], float(known[inside].mean())


def _at_most(layer: np.ndarray) -> Float[np.ndarray, "h w"]:
    """One channel, at most `LARGEST` pixels a side."""
    from PIL import Image

    image = Image.fromarray(layer.astype(np.float32))
    image.thumbnail((LARGEST, LARGEST))
    return np.asarray(image)


def _beginning(file: Path) -> str | None:
    """What a file that Pillow does not read is by its first bytes, None where they do not tell."""
    with file.open("rb") as opened:
        first = opened.read(1024)
    if first[4:12] in _HEIC:
        return "HEIC, which is not read: save it as PNG or JPEG"
    if b"<svg" in first:
        return "an SVG drawing, which has no pixels: save it as PNG"
    return foreign.not_itself(file)
