"""Several pictures of one object, framed as one camera that goes round it would take them.

A picture alone is scaled so that the longer side of its object is `input_picture.FILL` of the
frame. But an object that is long from its side is short from its front; what stays from side to
side is its height. So all heights become one, as large as the widest picture allows.
"""

from collections.abc import Sequence
from pathlib import Path

from dsd_jax.recipe.input_picture import FILL, InputPicture, box_of, prepare


def read_pictures(
    images: Sequence[str | Path],
    azimuths_deg: Sequence[float],
    elevations_deg: Sequence[float | None] = (),
    *,
    masks: Sequence[str | Path] = (),
    depth: str | Path | None = None,
    normal: str | Path | None = None,
    background: float = 1.0,
    recentre: bool = True,
) -> InputPicture:
    """Pictures of one object, for `generate`; the first, and the others as its `others`.

    Args:
        images: at least one.
        azimuths_deg: from where each was taken; growing as the camera moves to the right, around
            the object. Only differences matter.
        elevations_deg: how far above the horizon; one, which is that of all, or one for each.
            Left out, or None, the prior estimates that of the first, from where the others count
            as taken too.
        masks: none, or one for each.
        depth, normal, background, recentre: of the first, see `input_picture.prepare`.

    Raises as `input_picture.prepare`, and ValueError where counts or angles do not fit.
    """
    check(images, azimuths_deg, elevations_deg, masks)
    files = list(zip(images, masks or [None] * len(images), strict=True))
    maps = [(depth, normal), *[(None, None)] * (len(images) - 1)]
    fills = [FILL if recentre else None] * len(images)

    def read(fills: Sequence[float | None]) -> list[InputPicture]:
        return [
            prepare(*both, *own, background=background, fill=fill)
            for both, own, fill in zip(files, maps, fills, strict=True)
        ]

    pictures = read(fills)
    if recentre and len(pictures) > 1:
        pictures = read(fills_of(pictures))
    high = list(elevations_deg) or [None]
    high = high * len(images) if len(high) == 1 else high
    angles = zip(pictures, high, azimuths_deg, strict=True)
    placed = [own._replace(elevation_deg=up, azimuth_deg=float(at)) for own, up, at in angles]
    return placed[0]._replace(others=tuple(placed[1:]))


def fills_of(pictures: Sequence[InputPicture]) -> list[float]:
    """What `fill` has to be of each, so that all heights are one, and no side exceeds `FILL`."""
    wide = []
    for picture in pictures:
        top, bottom, left, right = box_of(picture.mask)
        wide.append((right - left) / (bottom - top))
    height = FILL / max(1.0, *wide)
    return [height * max(1.0, ratio) for ratio in wide]


def check(images: Sequence, azimuths_deg: Sequence, elevations_deg: Sequence, masks: Sequence):
    """Raise ValueError, with one line for the user, where counts or angles do not fit."""
    n = len(images)
    if not n:
        raise ValueError("--image is missing; give a picture of one object: --image chair.png")
    if len(azimuths_deg) != n:
        raise ValueError(
            f"{n} pictures and {len(azimuths_deg)} azimuths: give --image-azimuth after each "
            "--image, degrees as seen from the first: --image-azimuth 0, --image-azimuth 180"
        )
    if not all(abs(angle) <= 360 for angle in azimuths_deg):
        raise ValueError("--image-azimuth must be a number of degrees from -360 to 360")
    turned = [float(angle) % 360 for angle in azimuths_deg]
    if len({*turned}) < n:
        raise ValueError("two pictures have one --image-azimuth; give each its own")
    if len(masks) not in (0, n):
        raise ValueError(f"{n} pictures and {len(masks)} masks: give --mask for all, or for none")
    if len(elevations_deg) not in (0, 1, n):
        raise ValueError(
            f"{n} pictures and {len(elevations_deg)} elevations: give --elevation-deg once, or "
            "for each"
        )
