"""Pictures as small files in memory, and pages, for notebooks: `IPython.display.Image(jpeg(...))`.

Letters: n frames, h and w pixels. PNG with a palette and JPEG are what every viewer of stored
notebooks shows, and an animated PNG is a PNG.
"""

import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Num

from dsd_jax.export.pictures import to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_png(figure: "Figure") -> bytes:
    """A figure as a PNG of 256 colours, half as large as one without a palette."""
    from PIL import Image

    file = io.BytesIO()
    figure.savefig(file, format="png")
    picture = Image.open(file).convert("RGB")
    picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    return _bytes(picture, format="PNG", optimize=True)


def jpeg(image: Num[np.ndarray, "h w 3"], quality: int = 75) -> bytes:
    """A picture (floats in [0, 1] or uint8) as a JPEG."""
    from PIL import Image

    return _bytes(Image.fromarray(to_uint8(image)), format="JPEG", quality=quality)


def animated_png(
    frames: Num[np.ndarray, "n h w 3"], milliseconds: int = 120, colours: int = 64
) -> bytes:
    """Frames (floats in [0, 1] or uint8), over and over, in a palette of the colours of all."""
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in to_uint8(frames)]
    palette = Image.fromarray(np.concatenate(to_uint8(frames))).quantize(colours)
    first, *others = (
        picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures
    )
    moving = {"save_all": True, "append_images": others, "duration": milliseconds, "loop": 0}
    return _bytes(first, format="PNG", **moving)


def framed(page: str, height: int = 820) -> str:
    """A whole HTML page as an element: `IPython.display.HTML(framed(gallery_page(run)))`."""
    style = f"width: 100%; height: {height}px; border: 0"
    return f'<div><iframe style="{style}" srcdoc="{escape(page)}"></iframe></div>'


def _bytes(picture, **how) -> bytes:
    file = io.BytesIO()
    picture.save(file, **how)
    return file.getvalue()
