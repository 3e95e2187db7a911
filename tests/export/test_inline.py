"""Pictures as small files in memory, and pages."""

import io
import re
from html import unescape

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from dsd_jax.export import inline


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_jpeg_is_the_picture_nearly():
    ramp = np.broadcast_to(np.linspace(0, 1, 32)[:, None, None], (32, 24, 3))
    picture = opened(inline.jpeg(ramp, quality=95))
    assert picture.format == "JPEG" and picture.size == (24, 32)
    np.testing.assert_allclose(np.asarray(picture) / 255, ramp, atol=0.02)


def test_an_animated_png_has_all_frames_in_their_colours_and_repeats():
    colours = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    frames = np.broadcast_to(colours[:, None, None], (3, 8, 6, 3)).copy()
    frames[:, 0] = 0.5
    picture = opened(inline.animated_png(frames, milliseconds=50))
    assert picture.format == "PNG" and getattr(picture, "n_frames", 1) == 3
    assert picture.info["loop"] == 0
    for i, frame in enumerate(frames):
        picture.seek(i)
        np.testing.assert_allclose(np.asarray(picture.convert("RGB")) / 255, frame, atol=0.02)
        assert picture.info["duration"] == 50


def test_a_figure_keeps_its_colours_and_is_small():
    figure = Figure((3, 2), dpi=100)
    axes = figure.subplots()
    axes.imshow(np.array([[[0, 114, 178], [230, 159, 0], [213, 94, 0], [0, 0, 0]]], np.uint8))
    data = inline.figure_png(figure)
    picture = opened(data)
    assert picture.size == (300, 200) and picture.mode == "P" and len(data) < 10_000
    found = {colour for _, colour in picture.convert("RGB").getcolors(70_000) or ()}
    assert {(0, 114, 178), (230, 159, 0), (213, 94, 0), (255, 255, 255)} <= found


def test_a_framed_page_is_one_element_whose_page_is_unchanged():
    page = '<p title="a">1 < 2 &amp; </iframe><script>alert("x")</script></p>'
    frame = inline.framed(page, height=300)
    (shown,) = re.findall(
        r'^<div><iframe style="[^"]*300px[^"]*" srcdoc="([^"]*)"></iframe></div>$', frame
    )
    assert unescape(shown) == page
