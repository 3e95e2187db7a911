"""The object file: what is written is read, framing, buckets, and what is refused."""

import numpy as np
import pytest

from dsd_jax.data import objects as library
from dsd_jax.data.corrections import linear_to_srgb, stored_linear
from dsd_jax.data.objects import framing_scale, load_objects, save_objects
from dsd_jax.rendering.cameras import orbit


def rewrite(path, **changes):
    """The same file with some arrays replaced, or removed if None."""
    with np.load(path) as file:
        data = dict(file) | changes
    np.savez(path, **{k: v for k, v in data.items() if v is not None})
    return path


def test_what_is_saved_is_loaded(items, objects_file):
    objects = load_objects(objects_file)
    assert len(objects) == 3
    assert objects.caption == [item.caption for item in items]
    assert objects.category == ["house", "rock", "fish"]
    assert objects.symmetric.tolist() == objects.colourless.tolist() == [False, True, False]
    assert objects.num_faces.tolist() == [12, 300, 20]
    for i, item in enumerate(items):
        np.testing.assert_allclose(objects.colours(i), item.face_rgb / 255, atol=1e-6)
        corners = item.vertices[item.faces]
        low, high = corners.min((0, 1)), corners.max((0, 1))
        centred = (corners - (low + high) / 2) / (np.linalg.norm(high - low) / 2)
        np.testing.assert_allclose(objects.triangles(i) / objects.scale[i], centred, atol=3e-5)


def test_a_twentieth_of_the_captions_is_held_out_for_good():
    """The listed ones are those of the first Toybox-1-to-3: another choice would betray it."""
    names = ["pineapple", "red tower", "burger on a plate", "blue brick", "white wolf", "cube"]
    assert library.held_out(names).tolist() == [True, False, True, False, True, False]
    share = library.held_out([f"object {i}" for i in range(2000)]).mean()
    assert 0.035 < share < 0.065


def test_framing_touches_85_percent_at_the_worst_azimuth(objects_file):
    objects = load_objects(objects_file)
    azimuth = np.linspace(-np.pi, np.pi, 1440, endpoint=False)
    cameras = np.asarray(
        orbit(azimuth, np.radians(20), library.DISTANCE, library.FOV_Y).camera_to_world, np.float64
    )
    for i in range(len(objects)):
        points = objects.triangles(i).reshape(-1, 3).astype(np.float64)
        relative = points[None] - cameras[:, None, :3, 3]
        local = np.einsum("cvi,cij->cvj", relative, cameras[:, :3, :3])
        ndc = local[..., :2] / -local[..., 2:] / np.tan(library.FOV_Y / 2)
        assert np.abs(ndc).max() == pytest.approx(0.85, abs=5e-4)
        assert np.linalg.norm(points, axis=1).max() <= 1


def test_framing_stays_in_the_unit_ball():
    """A point below and behind the middle may leave the ball before it leaves the frame."""
    vertices = np.array([[0.0, -0.01, 0], [0, 0.01, 0], [0, 0, 0.001]], np.float32)
    scale = framing_scale(vertices, np.array([0, 3]), fill=3.0)
    assert np.linalg.norm(vertices * scale, axis=1).max() == pytest.approx(1)


def test_buckets_hold_every_object_once():
    counts = np.array([8192, 256, 257, 1, 4096])
    groups = {size: rows.tolist() for size, rows in library.buckets(counts)}
    assert groups == {256: [1, 3], 512: [2], 4096: [4], 8192: [0]}


def test_padding_adds_only_zeros(objects_file):
    objects = load_objects(objects_file)
    triangles, colours = library.padded(objects, [2, 0], 24)
    np.testing.assert_array_equal(triangles[0, :20], objects.triangles(2))
    np.testing.assert_array_equal(colours[1, :12], objects.colours(0))
    assert not triangles[0, 20:].any() and not colours[1, 12:].any()


def test_linear_colours_of_known_packs_are_mended(items, tmp_path):
    gray = np.full_like(items[0].face_rgb, 55)
    packs = [("quaternius", "nature_pack"), ("quaternius", "mech_pack"), ("", "")]
    path = tmp_path / "packs.npz"
    save_objects(path, [items[0]._replace(face_rgb=gray, source=s, group=g) for s, g in packs])
    objects = load_objects(path)
    linear = 55 / 255
    expected = 1.055 * linear ** (1 / 2.4) - 0.055  # 0.503
    assert objects.colours(0).max() == pytest.approx(expected, abs=1 / 255)
    assert objects.colours(1).max() == objects.colours(2).max() == pytest.approx(linear)


def test_which_packs_are_linear():
    named = [
        ("kenney+quaternius2019", "Models", "x", False),
        ("kenney+quaternius2019", "Train Pack - April 2019", "x", True),
        ("pmndrs", "vehicles", "taxi", True),
        ("pmndrs", "vehicles", "ship dark", False),
        ("kaykit", "vehicles", "taxi", False),
    ]
    source, group, name, expected = zip(*named, strict=True)
    assert stored_linear(source, group, name).tolist() == list(expected)
    assert linear_to_srgb(np.array([0, 255], np.uint8)).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"face_rgb": None}, "not an objects.npz"),
        ({"caption": np.array(["one"])}, "'category' is for 3"),
        ({"face_rgb": np.zeros((2, 3), np.uint8)}, "differ in length"),
        ({"face_offset": np.array([0, 12, 12, 332])}, "non-empty"),
        ({"faces": np.full((332, 3), 60000, np.uint16)}, "does not have"),
        ({"faces": np.zeros((332, 3), np.int32)}, r"'faces' is int32\[332, 3\]; pack it again"),
        ({"faces": np.zeros(996, np.uint16)}, r"'faces' is uint16\[996\]"),
        ({"vertices": np.full((8, 3), np.nan)}, "'vertices' is float64"),
        ({"face_rgb": np.zeros((332, 3))}, "'face_rgb' is float64"),
        ({"caption": np.array("x")}, "'caption' is one value"),
        ({"caption": np.arange(3)}, "'caption' is int64"),
    ],
)
def test_broken_arrays_are_refused_in_one_line(objects_file, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_objects(rewrite(objects_file, **change))
    assert "\n" not in str(caught.value)


def test_missing_file_and_impossible_objects(items, tmp_path):
    with pytest.raises(FileNotFoundError, match="pack_objects"):
        load_objects(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="no objects"):
        save_objects(tmp_path / "x.npz", [])
    with pytest.raises(ValueError, match="no extent"):
        save_objects(tmp_path / "x.npz", [items[0]._replace(vertices=np.zeros((36, 3)))])
    many = np.zeros((8193, 3), int)
    with pytest.raises(ValueError, match="8193 triangles"):
        save_objects(tmp_path / "x.npz", [items[0]._replace(faces=many)])


def test_first_objects_only(objects_file):
    objects = load_objects(objects_file)
    few = library.first(objects, 2)
    assert len(few) == 2 and few.num_faces.tolist() == [12, 300]
    np.testing.assert_array_equal(few.triangles(1), objects.triangles(1))
    assert len(library.first(objects, 9)) == 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: b"hello",
        lambda raw: raw[:80] + raw[90:],
    ],
)
def test_what_is_no_archive_is_refused_in_one_line(objects_file, tmp_path, spoil):
    (tmp_path / "spoilt.npz").write_bytes(spoil(objects_file.read_bytes()))
    with pytest.raises(ValueError, match=r"spoilt\.npz is not an objects\.npz: ") as caught:
        load_objects(tmp_path / "spoilt.npz")
    assert "\n" not in str(caught.value)
