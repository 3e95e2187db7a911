"""input_picture.py: one trap of a format, or one thing to be refused, at a time."""

import re

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dsd_jax.recipe.cut_out import cut_out
from dsd_jax.recipe.input_picture import FILL, box_of, frame, prepare
from dsd_jax.recipe.picture_files import unit_rgba

RED = (200, 30, 10)


def ellipse(h=40, w=60, ry=12, rx=18):
    """Where an ellipse in the middle is, [h, w] bool: 24 x 36 pixels."""
    y, x = np.mgrid[:h, :w]
    return ((y - h / 2 + 0.5) / ry) ** 2 + ((x - w / 2 + 0.5) / rx) ** 2 < 1


def red(inside, alpha=True, background=(255, 255, 255)):
    """uint8 picture of a red thing, transparent elsewhere or on a background."""
    rgb = np.where(inside[..., None], RED, background)
    return np.dstack([rgb, 255 * inside] if alpha else [rgb]).astype(np.uint8)


@pytest.fixture
def save(tmp_path):
    """(array or picture, name, what Pillow is to save with it) -> file."""

    def save(picture, name="picture.png", **more):
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.save(tmp_path / name, **more)
        return tmp_path / name

    return save


# ---- where the object is ------------------------------------------------------------------------


def test_the_box_is_centred_and_its_longer_side_fills_200_of_256(save):
    """Wherever the object stands in the file; what lies beyond the file is background."""
    inside = np.zeros((50, 90), bool)
    inside[:20, 30:70] = True  # touches the upper border
    found = prepare(save(red(inside)), size=64)
    assert found.rgb.shape == (64, 64, 3) and found.mask.shape == (64, 64)
    top, bottom, left, right = box_of(found.mask)
    assert (right - left) == pytest.approx(64 * FILL, abs=1)
    assert (bottom - top) == pytest.approx(64 * FILL / 2, abs=1)
    assert top + bottom == pytest.approx(64, abs=1) and left + right == pytest.approx(64, abs=1)
    np.testing.assert_allclose(found.rgb[32, 32], np.array(RED) / 255, atol=1e-3)
    np.testing.assert_array_equal(found.rgb[0, 0], 1)
    assert found.doubts == ["the object touches the picture's border and may be cut off"]


def test_colours_under_full_transparency_are_not_seen(save):
    """Green where nothing is: no green rim."""
    rgba = red(ellipse())
    rgba[~ellipse(), :3] = (0, 255, 0)
    found = prepare(save(rgba), size=32)
    rim = (found.mask > 0.05) & (found.mask < 0.95)
    assert rim.any()
    expected = found.mask[..., None] * np.array(RED) / 255 + (1 - found.mask[..., None])
    np.testing.assert_allclose(found.rgb, expected, atol=2e-3)


def test_the_background_is_a_grey_level_and_the_framing_can_be_kept(save):
    found = prepare(save(red(ellipse())), size=60, background=0.8, fill=None)
    np.testing.assert_allclose(found.rgb[0, 0], 0.8, rtol=1e-6)
    assert box_of(found.mask) == (18, 42, 12, 48)


def test_a_mask_takes_the_place_of_transparency(save):
    half = ellipse()
    half[:, :30] = False
    rgb = red(ellipse(), alpha=False, background=(90, 120, 40))
    by_mask = prepare(save(rgb), save((255 * half).astype(np.uint8), "mask.png"), size=32)
    rgba = np.dstack([rgb, 255 * half]).astype(np.uint8)
    by_alpha = prepare(save(rgba, "rgba.png"), size=32)
    np.testing.assert_array_equal(by_mask.rgb, by_alpha.rgb)
    transparent = np.dstack([np.zeros_like(rgb), 255 * half]).astype(np.uint8)
    by_other = prepare(save(rgb), save(transparent, "mask.png"), size=32)
    np.testing.assert_array_equal(by_mask.mask, by_other.mask)


@pytest.mark.parametrize("background", [(255, 255, 255), (40, 90, 160)], ids=str)
def test_on_a_plain_background_it_is_cut_out(save, background):
    """With noise as of a JPEG, a part that is nearly as the background, and a speck beside it."""
    rgb = red(ellipse(80, 120, 24, 36), alpha=False, background=background)
    rgb[36:44, 56:64] = np.clip(np.array(background) - 8, 0, 255)
    rgb[4:7, 4:7] = RED
    mask, doubts = cut_out(noisy(rgb))
    assert (mask != ellipse(80, 120, 24, 36)).mean() < 0.002
    assert doubts == []
    assert prepare(save(rgb)).doubts == []


def test_the_background_is_seen_through_holes():
    """Through a handle, but not where a few pixels are as bright as it."""
    rgb = red(ellipse(80, 120, 24, 36), alpha=False)
    rgb[36:44, 56:64] = rgb[40:42, 70:72] = 255
    expected = ellipse(80, 120, 24, 36)
    expected[36:44, 56:64] = False
    mask, doubts = cut_out(rgb.astype(np.float32) / 255)
    np.testing.assert_array_equal(mask, expected)
    assert doubts == ["holes that look like the background were left open"]


def test_a_background_may_be_shaded():
    """As in a studio: darker at the sides and at the bottom, by far more than a part is allowed."""
    y, x = np.mgrid[-1:1:80j, -1:1:120j]
    rgb = red(ellipse(80, 120, 24, 36), alpha=False) * 1.0
    rgb[~ellipse(80, 120, 24, 36)] = (210 - 30 * y - 40 * x**2)[~ellipse(80, 120, 24, 36), None]
    mask, doubts = cut_out(noisy(rgb))
    assert (mask != ellipse(80, 120, 24, 36)).mean() < 0.002
    assert doubts == []


def test_what_is_doubtful_is_said(save):
    rng = np.random.default_rng(0)
    patches = np.kron(rng.integers(0, 255, (10, 15, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    assert any("not plain" in doubt for doubt in prepare(save(patches)).doubts)
    two = np.zeros((60, 120), bool)
    two[10:40, 10:50] = two[10:38, 70:110] = True
    (doubt,) = prepare(save(red(two, alpha=False))).doubts
    assert doubt == "other pieces beside the largest were left out"
    tiny = np.zeros((200, 200), bool)
    tiny[90:106, 90:106] = True
    (doubt,) = prepare(save(red(tiny))).doubts
    assert doubt == "the object is tiny (0.6% of the picture)"
    full = np.full((40, 40), 255, np.uint8)
    (doubt,) = prepare(save(red(ellipse(40, 40))), save(full, "mask.png")).doubts
    assert doubt == "the object fills 100% of the picture"


def glass(opacity):
    """A red ellipse of this opacity."""
    rgba = red(ellipse())
    rgba[..., 3] = np.where(ellipse(), round(255 * opacity), 0)
    return rgba


def test_what_is_half_transparent_is_said(save):
    (doubt,) = prepare(save(glass(0.6))).doubts
    assert doubt.startswith("100% of the object is half transparent")
    rim = glass(0.3)
    rim[:, :30, 3] = 255 * ellipse()[:, :30]
    (doubt,) = prepare(save(rim)).doubts
    assert re.match(r"\d\d% of the object is half transparent", doubt)
    soft = Image.fromarray((255 * ellipse()).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.5))
    assert prepare(save(red(ellipse(), alpha=False)), save(soft, "mask.png")).doubts == []


def test_doubtful_maps_are_said(save):
    """All black, all grey, or as of the object's back."""
    file, ramp = save(red(ellipse())), np.arange(60, dtype=np.uint8)[None].repeat(40, 0)

    def doubts(depth, normal):
        normal = np.broadcast_to(np.uint8(normal), (40, 60, 3))
        return prepare(file, None, save(depth, "d.png"), save(normal, "n.png")).doubts

    assert doubts(ramp, (128, 128, 255)) == []
    black, away = doubts(0 * ramp, (128, 128, 0))
    assert black.endswith("d.png says the same depth everywhere")
    assert away.endswith("n.png faces away from the viewer at 100% of the object")
    (nothing,) = doubts(ramp, (128, 128, 128))
    assert nothing.endswith("n.png says no direction at 100% of the object")
    assert doubts(ramp, (0, 0, 0))


@pytest.mark.parametrize(
    "levels",
    [np.uint8([0, 1]), np.uint16([0, 255]), np.uint8([100, 200]), np.float32([0, 0.3]),
     np.uint8([[0, 0, 0], [255, 0, 0]]), np.uint8([[0, 0, 0], [0, 255, 0]])],
    ids=str,
)  # fmt: skip
def test_of_a_mask_with_two_levels_the_brighter_is_the_object(save, levels):
    file = save(red(ellipse(), alpha=False))
    mask = save(levels[ellipse().astype(int)], "mask.tif")
    np.testing.assert_array_equal(
        prepare(file, mask, size=32).mask, prepare(save(red(ellipse()), "clear.png"), size=32).mask
    )


@pytest.mark.parametrize("least", [254, 200, 128])
def test_a_mask_that_is_nowhere_transparent_is_told_by_its_brightness(save, least):
    """Some programs write 254 where they mean opaque."""
    inside = ellipse()
    mask = np.dstack(
        [np.repeat(np.uint8(255 * inside)[..., None], 3, -1), np.full(inside.shape, 255)]
    )
    mask[::3, :, 3] = least
    picture = save(red(inside, alpha=False))
    found = prepare(picture, save(mask.astype(np.uint8), "mask.png"), size=32)
    np.testing.assert_array_equal(found.mask, prepare(save(red(inside), "own.png"), size=32).mask)


def noisy(rgb):
    """In [0, 1], with noise as of a JPEG."""
    noise = np.random.default_rng(0).normal(0, 3, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.float32) / 255


# ---- formats ------------------------------------------------------------------------------------


def test_exif_rotation_is_respected(save):
    """Orientation 6: the file is to be turned clockwise; a mask of the upright size fits."""
    inside = np.zeros((40, 60), bool)
    inside[5:15, 10:50] = True
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(red(inside)).transpose(Image.Transpose.ROTATE_90)
    upright, file = prepare(save(red(inside))), save(turned, "turned.png", exif=exif)
    np.testing.assert_array_equal(prepare(file).mask, upright.mask)
    mask = save((255 * inside).astype(np.uint8), "mask.png")
    np.testing.assert_array_equal(prepare(file, mask).rgb, upright.rgb)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12",
        b"Exif\0\0no TIFF header",
        b"\xff" * 40,
    ],
)
@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.webp"])
def test_exif_data_that_cannot_be_read_do_not_matter(save, name, exif):
    picture = Image.fromarray(red(ellipse(), alpha=False))
    plain = save(picture, f"plain_{name}")
    found = prepare(save(picture, name, exif=exif), size=32)
    np.testing.assert_allclose(found.mask, prepare(plain, size=32).mask)


def colours_of(image):
    return np.round(255 * unit_rgba(image)).astype(int)


def test_grey_palette_and_cmyk():
    grey = Image.new("L", (20, 20), 100)
    np.testing.assert_array_equal(colours_of(grey)[0, 0], [100, 100, 100, 255])
    bilevel = Image.new("1", (20, 20), 1)
    np.testing.assert_array_equal(colours_of(bilevel)[0, 0], [255, 255, 255, 255])
    both = Image.new("LA", (20, 20), (100, 51))
    np.testing.assert_array_equal(colours_of(both)[0, 0], [100, 100, 100, 51])
    palette = Image.new("RGB", (20, 20), RED).quantize(4)
    np.testing.assert_array_equal(colours_of(palette)[0, 0], [*RED, 255])
    cmyk = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
    assert np.abs(colours_of(cmyk)[0, 0] - [255, 0, 0, 255]).max() <= 2


def test_a_palette_with_a_transparent_colour(save):
    image = Image.fromarray(np.uint8(ellipse()), "P")
    image.putpalette([0, 255, 0, *RED])
    for name in ("palette.png", "palette.gif"):
        found = prepare(save(image, name, transparency=0), size=32)
        np.testing.assert_allclose(found.mask, prepare(save(red(ellipse())), size=32).mask)
        np.testing.assert_allclose(found.rgb[16, 16], np.array(RED) / 255, atol=1e-3)


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_greys_of_16_bits_keep_their_depth(save, name):
    """256 levels would lose the step from 32768 to 32896; 32896 / 65535 is 128 / 255."""
    values = np.full((40, 60), 65535, np.uint16)
    values[ellipse()] = 32768
    values[18:22, 28:32] = 32896
    image = Image.open(save(values, name))
    rgba = unit_rgba(image)
    np.testing.assert_allclose(rgba[0, 0], 1)
    np.testing.assert_allclose(rgba[20, 30, :3], 128 / 255, rtol=1e-6)
    assert 0 < rgba[20, 30, 0] - rgba[20, 20, 0] < 0.003
    assert prepare(save(values, name), size=32).doubts == []


def test_floats_and_16_bits_with_a_transparent_level():
    floats = Image.fromarray(np.float32([[0.25, np.nan]] * 20))
    np.testing.assert_allclose(unit_rgba(floats)[0, :, 0], [0.25, 0])
    bytes_as_floats = Image.fromarray(np.float32([[51, 255]] * 20))
    np.testing.assert_allclose(unit_rgba(bytes_as_floats)[0, :, 0], [0.2, 1])
    image = Image.fromarray(np.uint16([[0, 65535]] * 20))
    image.info["transparency"] = 65535
    np.testing.assert_array_equal(unit_rgba(image)[0, :, 3], [1, 0])


def test_large_pictures_are_made_smaller_and_odd_shapes_kept(save):
    large = Image.new("RGB", (3000, 1500), "white")
    large.paste(RED, (1000, 500, 2000, 1000))
    file = save(large, "large.jpg")
    assert unit_rgba(Image.open(file)).shape == (512, 1024, 4)
    found = prepare(file, size=64)
    top, bottom, left, right = box_of(found.mask)
    assert (right - left, bottom - top) == pytest.approx((50, 25), abs=1)
    strip = np.zeros((20, 400), bool)
    strip[5:15, 20:380] = True
    assert prepare(save(red(strip))).mask.max() > 0.9


# ---- depth and normals --------------------------------------------------------------------------


def test_depth_and_normals_go_through_the_same_frame(save):
    """A ramp of depth and a normal to the right, both known inside the object alone."""
    inside = ellipse()
    ramp = np.broadcast_to(np.arange(60) * 4, (40, 60))
    normal = np.where(inside[..., None], (255, 128, 128), (0, 0, 0)).astype(np.uint8)
    depth = save(np.where(inside, ramp, 255).astype(np.uint8), "depth.png")
    found = prepare(save(red(inside)), None, depth, save(normal, "normal.png"), size=64)
    assert found.depth is not None and found.normal is not None
    row, solid = found.depth[32], found.mask[32] > 0.99
    assert (np.diff(row[solid]) > 0).all() and row[solid].max() < 0.95
    np.testing.assert_allclose(found.normal[32, 32], [1, 0, 0], atol=0.01)
    np.testing.assert_array_equal(found.normal[0, 0], 0)
    np.testing.assert_array_equal(found.depth[0, 0], 0)


@pytest.mark.parametrize("nothing", [np.inf, -np.inf, np.nan, 1e10])
def test_a_depth_of_floats_is_that_of_the_object(save, nothing):
    """Negative, as OpenGL has it, and of no meaning beside the object and in a hole of it."""
    inside, file = ellipse(), save(red(ellipse()))
    ramp = np.broadcast_to(np.arange(60, dtype=np.float32) - 100, (40, 60))
    whole = prepare(file, None, save(ramp, "whole.tif"), size=64)
    assert whole.depth is not None and whole.doubts == []
    solid = whole.mask > 0.99
    assert np.ptp(whole.depth[solid]) > 0.9 and (np.diff(whole.depth[32][solid[32]]) > 0).all()
    holes = np.where(inside, ramp, np.float32(nothing))
    found = prepare(file, None, save(holes, "depth.tif"), size=64)
    assert found.depth is not None
    np.testing.assert_allclose(found.depth[solid], whole.depth[solid], atol=0.05)
    assert found.doubts == []
    holes[18:22, 20:40] = nothing
    (doubt,) = prepare(file, None, save(holes, "depth.tif"), size=64).doubts
    assert doubt.endswith("depth.tif says no depth at 12% of the object")
    with pytest.raises(ValueError, match="says no depth of the object"):
        prepare(file, None, save(np.where(inside, np.float32(nothing), ramp), "depth.tif"))


def test_framing_by_hand():
    """A 2 x 2 object in a 4 x 6 file, on a frame of twice its side: each pixel stays one."""
    layers = np.arange(4 * 6 * 4, dtype=np.float32).reshape(4, 6, 4)
    alpha = np.zeros((4, 6), np.float32)
    alpha[1:3, 2:4] = 1
    layers[..., 3] = alpha
    framed = frame(layers, alpha, 4, fill=0.5)
    np.testing.assert_allclose(framed[..., 3], np.pad(np.ones((2, 2)), 1))
    np.testing.assert_allclose(framed[1:3, 1:3, 0], layers[1:3, 2:4, 0])
    assert framed[0].sum() == 0


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "it is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b'<?xml version="1.0"?><svg xmlns="">', "it is an SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC, which is not read"),
        (b"", "it is empty: fetch it again"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, content, said):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"--image .*x.png cannot be read as a picture: {said}"):
        prepare(tmp_path / "x.png")


def test_what_cannot_be_used_is_said_in_one_line(save, tmp_path):
    good = save(red(ellipse()), "good.png")
    (tmp_path / "text.png").write_text("no picture")
    whole = good.read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    cases = [
        ([tmp_path / "none.png"], FileNotFoundError, "none.png does not exist"),
        ([tmp_path], ValueError, "is a folder"),
        ([tmp_path / "text.png"], ValueError, "text.png cannot be read as a picture"),
        ([tmp_path / "cut.png"], ValueError, "cut.png cannot be read as a picture"),
        ([save(red(ellipse()) * 0, "clear.png")], ValueError, "is transparent everywhere"),
        ([save(glass(0.4), "faint.png")], ValueError, "40% opaque at most.* --mask says"),
        ([good, tmp_path], ValueError, "--mask .* is a folder"),
        ([save(red(ellipse(15, 40)), "low.png")], ValueError, "is 40 x 15 pixels; 16 x 16 at"),
        ([save(red(ellipse(90, 90, 4, 6)), "dot.png")], ValueError, "is 12 x 8 pixels; 16 at"),
        ([save(np.full((40, 40, 3), 7, np.uint8), "flat.png")], ValueError, "no object stands out"),
        ([good, good.with_name("m.png")], FileNotFoundError, "--mask .*m.png does not exist"),
        (
            [good, save(np.zeros((60, 40), np.uint8), "other.png")],
            ValueError,
            "--mask .*other.png is 40 x 60 pixels, but --image is 60 x 40",
        ),
        (
            [good, save(np.zeros((40, 60), np.uint8), "black.png")],
            ValueError,
            "black.png is empty.* 0.0%",
        ),
        (
            [good, None, save(np.zeros((4, 4), np.uint8), "d.png")],
            ValueError,
            "--depth .* is 4 x 4",
        ),
    ]
    for arguments, error, said in cases:
        with pytest.raises(error, match=said) as found:
            prepare(*arguments)
        assert "\n" not in str(found.value)
