"""PNG files, and a contact sheet of many seeds.

Letters: s seeds, v views, h and w pixels.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8

from dsd_jax.files import atomic_path

LABEL_HEIGHT = 20
GAP = 2
PAPER = 255
INK = 40


def to_uint8(image: Num[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Floats in [0, 1] to 0..255, rounded, clipped, nan as 0; uint8 passes through."""
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image
    image = np.nan_to_num(image.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)


def save_png(path: str | Path, image: Num[np.ndarray, "h w 3"]) -> None:
    """Write a picture (floats in [0, 1] or uint8) atomically; folders above it are made."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(to_uint8(image)).save(temporary, format="PNG")


def save_jpeg(path: str | Path, image: Num[np.ndarray, "h w 3"], quality: int = 88) -> None:
    """Write a picture (floats in [0, 1] or uint8) atomically; folders above it are made."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(to_uint8(image)).save(temporary, format="JPEG", quality=quality)


def contact_sheet(
    images: Num[np.ndarray, "s v h w 3"],
    labels: Sequence[str] | None = None,
    tile: int | None = None,
    rows: Sequence[str] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """One row per view, one column per seed, under small labels.

    Args:
        images: floats in [0, 1] or uint8.
        labels: one a column, for instance "seed 3"; None leaves the strip of labels out.
        rows: labels of the rows, to their left; None leaves them out.
        tile: side of a tile in pixels; pictures of another height are resized to fit.

    Raises ValueError when labels and columns, or rows, differ in number.
    """
    tiles = to_uint8(images)
    if labels is not None and len(labels) != len(tiles):
        raise ValueError(f"{len(labels)} labels for {len(tiles)} columns")
    if rows is not None and len(rows) != tiles.shape[1]:
        raise ValueError(f"{len(rows)} labels for {tiles.shape[1]} rows")
    if tile is not None and tile != tiles.shape[2]:
        tiles = _resized(tiles, tile)
    s, v, h, w, _ = tiles.shape
    sheet = np.full((v, h + GAP, s, w + GAP, 3), PAPER, np.uint8)
    sheet[:, :h, :, :w] = tiles.transpose(1, 2, 0, 3, 4)
    sheet = sheet.reshape(v * (h + GAP), s * (w + GAP), 3)[:-GAP, :-GAP]
    if labels is not None:
        sheet = np.concatenate([_label_strip(labels, sheet.shape[1], w + GAP, w), sheet])
    if rows is None:
        return sheet
    return np.concatenate([_row_labels(rows, sheet.shape[0], h + GAP, h), sheet], axis=1)


def _resized(tiles: np.ndarray, height: int) -> np.ndarray:
    from PIL import Image

    *leading, h, w, _ = tiles.shape
    size = (max(round(w * height / h), 1), height)
    flat = [
        np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
        for picture in tiles.reshape(-1, h, w, 3)
    ]
    return np.stack(flat).reshape(*leading, height, size[0], 3)


def _label_strip(labels: Sequence[str], width: int, step: int, column: int) -> np.ndarray:
    """White strip with one label centred over each column, at most as wide as the column."""
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, LABEL_HEIGHT), (PAPER,) * 3)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(12)
    for i, label in enumerate(labels):
        while label and draw.textlength(label, font=font) > column:
            label = label[:-1]
        centre = (i * step + column // 2, LABEL_HEIGHT // 2)
        draw.text(centre, label, fill=(INK,) * 3, font=font, anchor="mm")
    return np.asarray(strip)


def _row_labels(rows: Sequence[str], height: int, step: int, row: int) -> np.ndarray:
    """White margin as wide as its longest label, each beside the middle of its row."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(12)
    widest = max(round(font.getlength(label)) for label in rows) + 8
    margin = Image.new("RGB", (widest, height), (PAPER,) * 3)
    draw = ImageDraw.Draw(margin)
    first = height - len(rows) * step + GAP
    for i, label in enumerate(rows):
        place = (widest - 4, first + i * step + row // 2)
        draw.text(place, label, fill=(INK,) * 3, font=font, anchor="rm")
    return np.asarray(margin)


def seeds_sheet(
    views: UInt8[np.ndarray, "n v h w 3"],
    seeds: list[int],
    tile: int,
    beside: UInt8[np.ndarray, "height width 3"] | None = None,
    lost: Collection[int] = (),
) -> UInt8[np.ndarray, "H W 3"]:
    """A contact sheet: a column a seed, and before them the picture that they were made from.

    Args:
        tile: side of a tile in pixels.
        beside: that picture, if there is one.
        lost: seeds that are marked as such.
    """
    labels = [f"seed {seed}{': lost' if seed in lost else ''}" for seed in seeds]
    if beside is None:
        return contact_sheet(views, labels, tile)
    from PIL import Image

    _, v, h, w, _ = views.shape
    column = np.full((1, v, h, w, 3), PAPER, np.uint8)
    column[0, 0] = np.asarray(Image.fromarray(beside).resize((w, h)))
    return contact_sheet(np.concatenate([column, views]), ["input", *labels], tile)
