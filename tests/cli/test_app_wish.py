"""What a visitor of `dsd app` may ask for."""

import io

import numpy as np
import pytest
from PIL import Image

from dsd_jax.cli import app_wish, text3d
from dsd_jax.cli.app_wish import Offer, Wish, check, words_of
from dsd_jax.recipe.presets import draft
from dsd_jax.recipe.recipe import with_method


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "given" / "My chair.png"
    file.parent.mkdir()
    Image.fromarray(np.zeros((6, 8, 4), np.uint8)).save(file)
    return file


def test_a_prompt_becomes_the_command_line_that_the_program_reads(tmp_path):
    wish = Wish("  a red\nhouse ", None, 3.0, 5, "sds", "draft")
    program, *words = words_of(wish, Offer(more=["--devices", "2"]), tmp_path)
    args, recipe = text3d.parse(words)
    assert program == "text3d" and args.prompt == "a red house"
    assert (args.run.seeds, args.run.preset, args.run.devices) == ("5:8", "draft", 2)
    assert args.run.out == tmp_path and recipe == with_method(draft, "sds")
    odd = words_of(Wish("--seeds 0:99"), Offer(), tmp_path)
    assert text3d.parse(odd[1:])[0].prompt == "--seeds 0:99"


def test_a_picture_is_kept_under_its_name(picture, tmp_path):
    program, image, *words = words_of(Wish(picture=str(picture)), Offer(), tmp_path)
    kept = tmp_path / "pictures"
    (file,) = kept.glob("*/*")
    assert program == "single-view" and image == f"--image={file}"
    assert file.name == "My chair.png" and file.read_bytes() == picture.read_bytes()
    assert words[:2] == ["--prior", "toybox-1to3"]
    words_of(Wish(picture=str(picture)), Offer(), tmp_path)
    assert list(kept.glob("*/*")) == [file]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish(), "say what to make"),
        (Wish("a house", "a.png"), "not both"),
        (Wish("a " * 150), "at most 200"),
        (Wish("a\0house"), "characters that are none"),
        (Wish("a \ud800 house"), "no text"),
        (Wish(["a house"]), "no text"),
        (Wish("a house", seeds=0), "from 1 to 8, not 0"),
        (Wish("a house", seeds=9), "from 1 to 8, not 9"),
        (Wish("a house", seeds=2.5), "not 2.5"),
        (Wish("a house", seeds=float("nan")), "not nan"),
        (Wish("a house", seeds=float("inf")), "not inf"),
        (Wish("a house", seeds="4"), "not '4'"),
        (Wish("a house", seeds=True), "not True"),
        (Wish("a house", seeds=None), "not None"),
        (Wish("a house", first=-1), "the first seed"),
        (Wish("a house", first=2**32), "the first seed"),
        (Wish("a house", method="x" * 999), "the method must be one of"),
        (Wish("a house", preset="best"), "quick, draft, standard, not 'best'"),
        (Wish("a house", preset=["quick"]), "the preset"),
        (Wish(picture="/nowhere.png"), "cannot be read"),
        (Wish(picture=__file__), "cannot be read"),
    ],
)
def test_what_cannot_be_is_one_short_line(wish, said, tmp_path):
    with pytest.raises(ValueError, match=said) as refused:
        words_of(wish, Offer(), tmp_path)
    line = str(refused.value)
    assert "\n" not in line and len(line) < 160
    assert not list(tmp_path.iterdir())


def test_a_picture_too_large_in_bytes_or_pixels(picture, tmp_path, monkeypatch):
    monkeypatch.setattr(app_wish, "PIXELS", 47)
    with pytest.raises(ValueError, match="million pixels"):
        words_of(Wish(picture=str(picture)), Offer(), tmp_path)
    monkeypatch.setattr(app_wish, "PICTURE_BYTES", 10)
    with pytest.raises(ValueError, match="larger than"):
        words_of(Wish(picture=str(picture)), Offer(), tmp_path)


def test_a_bomb_is_not_unpacked(tmp_path):
    """A picture whose header says 60,000 x 60,000."""
    data = io.BytesIO()
    Image.new("L", (1, 1)).save(data, "BMP")
    bomb = bytearray(data.getvalue())
    bomb[18:26] = np.int32([60_000, 60_000]).tobytes()
    (tmp_path / "bomb.bmp").write_bytes(bomb)
    with pytest.raises(ValueError, match="picture"):
        words_of(Wish(picture=str(tmp_path / "bomb.bmp")), Offer(), tmp_path)


def test_an_offer_that_is_none():
    check(Offer(seeds=1, presets=("best",)))
    for offer, said in (
        (Offer(seeds=0), "--seeds must be a whole number from 1"),
        (Offer(presets=("fast",)), "--presets must be one of"),
        (Offer(presets=()), "names none"),
    ):
        with pytest.raises(ValueError, match=said):
            check(offer)
