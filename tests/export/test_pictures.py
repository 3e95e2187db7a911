"""Pictures survive the way to disk; the contact sheet has its tiles where they belong."""

import numpy as np
import pytest
from PIL import Image

from dsd_jax.export import pictures


def test_to_uint8_rounds_and_clips():
    values = np.array([0, 0.5, 1, -1, 2, np.nan, np.inf, -np.inf, 0.4 / 255, 0.6 / 255])
    expected = [0, 128, 255, 0, 255, 0, 255, 0, 0, 1]
    np.testing.assert_array_equal(pictures.to_uint8(values), expected)
    every = np.arange(256, dtype=np.uint8)
    assert pictures.to_uint8(every) is every
    np.testing.assert_array_equal(pictures.to_uint8(every.astype(np.float32) / 255), every)


def test_png_round_trip(tmp_path):
    picture = np.random.default_rng(0).random((5, 7, 3))
    path = tmp_path / "views" / "az000.png"
    pictures.save_png(path, picture)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), pictures.to_uint8(picture))
    assert [p.name for p in path.parent.iterdir()] == ["az000.png"]


def test_png_that_fails_keeps_the_old_one(tmp_path):
    path = tmp_path / "a.png"
    pictures.save_png(path, np.zeros((2, 2, 3)))
    with pytest.raises((TypeError, ValueError)):
        pictures.save_png(path, np.zeros((2, 2, 7)))
    assert np.asarray(Image.open(path)).shape == (2, 2, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_sheet_has_a_row_per_view_and_a_column_per_seed():
    images = np.zeros((3, 2, 16, 12, 3), np.uint8)
    images[..., 0] = np.arange(3)[:, None, None, None]
    images[..., 1] = np.arange(2)[:, None, None]
    sheet = pictures.contact_sheet(images, ["seed 0", "seed 1", "seed 15"])
    top, gap = pictures.LABEL_HEIGHT, pictures.GAP
    assert sheet.shape == (top + 2 * 16 + gap, 3 * 12 + 2 * gap, 3)
    for seed in range(3):
        for view in range(2):
            y, x = top + view * (16 + gap), seed * (12 + gap)
            np.testing.assert_array_equal(sheet[y : y + 16, x : x + 12], images[seed, view])


def test_labels_stand_over_their_columns():
    images = np.zeros((3, 1, 60, 60, 3))
    sheet = pictures.contact_sheet(images, ["seed 0", "", "a very long label " * 20])
    strip = sheet[: pictures.LABEL_HEIGHT]
    ink = [(strip[:, x : x + 60] < 128).sum() for x in (0, 62, 124)]
    assert ink[0] > 10 and ink[1] == 0 and ink[2] > ink[0]
    assert (strip[:, 60:62] == pictures.PAPER).all() and (strip[:, 122:124] == 255).all()
    bare = pictures.contact_sheet(images)
    np.testing.assert_array_equal(bare, sheet[pictures.LABEL_HEIGHT :])
    with pytest.raises(ValueError, match="2 labels for 3 columns"):
        pictures.contact_sheet(images, ["a", "b"])


def test_tiles_can_be_smaller():
    images = np.zeros((1, 1, 8, 8, 3))
    images[..., ::2, :] = 1.0
    sheet = pictures.contact_sheet(images, tile=4)
    assert sheet.shape == (4, 4, 3)
    np.testing.assert_allclose(sheet, 127.5, atol=0.5)


def test_rows_have_labels_too():
    images = np.zeros((2, 3, 20, 20, 3))
    bare = pictures.contact_sheet(images, ["a", "b"])
    sheet = pictures.contact_sheet(images, ["a", "b"], rows=["dsd", "", "dsd-star"])
    margin = sheet[:, : sheet.shape[1] - bare.shape[1]]
    np.testing.assert_array_equal(sheet[:, margin.shape[1] :], bare)
    top = pictures.LABEL_HEIGHT
    ink = [(margin[y : y + 20] < 128).sum() for y in (top, top + 22, top + 44)]
    assert ink[2] > ink[0] > 10 and ink[1] == 0 and (margin[:top] == pictures.PAPER).all()
    with pytest.raises(ValueError, match="1 labels for 3 rows"):
        pictures.contact_sheet(images, rows=["dsd"])


def test_the_picture_that_seeds_were_made_from_stands_before_them():
    views = np.full((2, 3, 8, 8, 3), 100, np.uint8)
    alone = pictures.seeds_sheet(views, [4, 7], 8)
    beside = pictures.seeds_sheet(views, [4, 7], 8, np.full((16, 16, 3), 30, np.uint8))
    top, gap = pictures.LABEL_HEIGHT, pictures.GAP
    assert alone.shape == (top + 3 * 8 + 2 * gap, 2 * 8 + gap, 3)
    np.testing.assert_array_equal(beside[top:, 8 + gap :], alone[top:])
    column = beside[top:, :8]
    assert (column[:8] == 30).all() and (column[8:] == 255).all()
