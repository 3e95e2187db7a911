"""Mesh files as shapes that are kept."""

import json
import struct

import numpy as np
import pytest
import trimesh

from dsd_jax.data import given_mesh
from dsd_jax.data.given_mesh import read_shape, signed_distance

CELLS = 32
GRID = given_mesh._grid(CELLS).reshape((CELLS + 1,) * 3 + (3,))


def test_a_ball_s_distance_whatever_its_winding():
    """Exact near the surface, where half of the triangles are turned inside out."""
    ball = trimesh.creation.icosphere(4, radius=0.6)
    faces = np.array(ball.faces)
    faces[::2] = faces[::2, ::-1]
    found, sides = signed_distance(np.array(ball.vertices), faces, CELLS)
    wanted = np.linalg.norm(GRID, axis=-1) - 0.6
    near = np.abs(wanted) < 0.15
    np.testing.assert_allclose(found[near], wanted[near], atol=0.003)
    assert (np.sign(found) == np.sign(wanted))[np.abs(wanted) > 0.003].all()
    assert sides[1::2].tolist() == [[True, False]] * (len(faces) // 2)
    assert sides[::2].tolist() == [[False, True]] * (len(faces) // 2)


def test_a_sheet_is_a_little_thick_and_seen_from_both_sides():
    sheet = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    found, sides = signed_distance(sheet + np.array([0, 0, 0.03]), faces, CELLS)
    assert sides.all()
    middle = found[CELLS // 2, CELLS // 2]
    assert middle.min() < 0 and (middle < 0).sum() <= 2 and middle.max() > 0.5
    vertices, twice = given_mesh._turned_outward(sheet, faces, sides)
    assert len(vertices) == 8 and len(twice) == 4
    normals = given_mesh._normals(vertices, twice)
    np.testing.assert_allclose(normals[:, 2], [1, 1, -1, -1])


def test_a_file_is_framed_and_its_coordinates_come_back(tmp_path):
    """A box of 2 x 4 x 1 somewhere: in the frame as Toybox's objects, upright, closed."""
    box = trimesh.creation.box((2.0, 4.0, 1.0))
    box.apply_translation([10, 20, 30])
    box.export(tmp_path / "My box.glb")
    shape = read_shape(tmp_path / "My box.glb", cells=CELLS)
    assert shape.name == "My box" and shape.doubts == () and shape.cells == CELLS
    assert np.linalg.norm(shape.vertices, axis=1).max() <= 1.0
    own = (shape.vertices - shape.origin) * shape.scale
    np.testing.assert_allclose(np.sort(own, 0)[[0, -1]], box.bounds, atol=1e-4)
    assert trimesh.Trimesh(own, shape.faces).volume == pytest.approx(8, rel=1e-3)
    inside = (shape.distance < 0).mean() * 8 * shape.scale**3
    assert inside == pytest.approx(8, rel=0.25)
    again = read_shape(tmp_path / "My box.glb", cells=CELLS)
    assert again.fingerprint == shape.fingerprint
    turned = read_shape(tmp_path / "My box.glb", cells=CELLS, turn_deg=90)
    assert turned.fingerprint != shape.fingerprint
    extent = np.ptp(turned.vertices, axis=0) * turned.scale
    np.testing.assert_allclose(extent, [1, 4, 2], rtol=1e-4)


def test_which_axis_is_up_is_said_where_the_file_does_not(tmp_path):
    """z of an STL, y of others, or what is asked for; of z, -y is the front."""
    wedge = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, -3, 0], [0, 0, 2.0]], [[0, 1, 2], [0, 2, 3],
                            [0, 3, 1], [1, 3, 2]])  # fmt: skip
    for name in ("w.stl", "w.obj"):
        wedge.export(tmp_path / name)
    stl, obj = (read_shape(tmp_path / name, cells=CELLS) for name in ("w.stl", "w.obj"))
    said = read_shape(tmp_path / "w.obj", cells=CELLS, up="z")
    for shape, extent in ((stl, [1, 2, 3]), (obj, [1, 3, 2]), (said, [1, 2, 3])):
        np.testing.assert_allclose(np.ptp(shape.vertices, axis=0) * shape.scale, extent, rtol=1e-4)
    assert (stl.vertices[:, 2] * stl.scale > 1.4).any()  # what lay at -y
    assert "z is taken" in stl.doubts[0] and "y is taken" in obj.doubts[0] and not said.doubts


def test_too_many_triangles_are_reduced_and_open_shapes_said(tmp_path, monkeypatch):
    monkeypatch.setattr(given_mesh, "MOST_FACES", 400)
    ball = trimesh.creation.icosphere(4)
    ball.export(tmp_path / "ball.glb")
    shape = read_shape(tmp_path / "ball.glb", cells=CELLS)
    assert len(shape.faces) <= 400 and shape.doubts == ("its 5,120 triangles become 400",)
    half = trimesh.Trimesh(ball.vertices, ball.faces[ball.triangles_center[:, 1] > 0])
    half.export(tmp_path / "half.glb")
    shape = read_shape(tmp_path / "half.glb", cells=CELLS)
    assert "of its surface has no inside" in shape.doubts[-1]


def glb(path, vertices, faces):
    trimesh.Trimesh(vertices, faces, process=False).export(path)


def draco(path):
    """A file that names compressed triangles, though it can be read without."""
    primitive = {"attributes": {}, "extensions": {"KHR_draco_mesh_compression": {}}}
    header = json.dumps({"meshes": [{"primitives": [primitive]}]}).encode()
    path.write_bytes(
        b"glTF" + struct.pack("<II", 2, 20 + len(header)) + struct.pack("<I", len(header))
        + b"JSON" + header
    )  # fmt: skip


LETTERS = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float a\nend_header\n1\n"


def fan(path):
    """More triangles than are kept, which fold onto four points: none is left."""
    corners = "v 0 0 0\nv 0 0 1\nv 0 1 0\nv 0 1 1\n"
    path.write_text(f"{corners}f {'1 2 4 3 ' * 50_000}\n")


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("none.glb", lambda path: None, "does not exist"),
        ("a folder.glb", lambda path: path.mkdir(), "is a folder"),
        ("text.glb", lambda path: path.write_text("no mesh"), "cannot be read as a mesh"),
        ("empty.obj", lambda path: path.write_text(""), "as a mesh: it is empty: fetch it again"),
        ("lfs.glb", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"),
         "it is a Git LFS pointer"),
        ("html.glb", lambda path: path.write_text("<html>"), "it is a web page"),
        ("letters.ply", lambda path: path.write_text(LETTERS), "it is damaged, or not what its su"),
        ("list.gltf", lambda path: path.write_text("[]"), "it is damaged, or not what its suffix"),
        ("fan.obj", fan, "holds no triangle that has an area"),
        ("picture.png", lambda path: path.write_bytes(b"png"), "no mesh file that is read: .glb"),
        ("points.ply", lambda path: trimesh.PointCloud(np.eye(3)).export(path), "no triangles"),
        ("nan.obj", lambda path: path.write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"),
         "a coordinate that is no number"),
        ("beyond.glb", lambda path: glb(path, np.eye(3), [[0, 1, 7]]), "vertex that is not there"),
        ("draco.glb", draco, "compressed with Draco"),
        ("buffer.gltf", lambda path: path.write_text('{"buffers": [{"uri": "gone%20.bin"}]}'),
         "its triangles are in gone .bin, which is not there"),
        ("line.glb", lambda path: glb(path, np.eye(3)[[0, 0, 1]], [[0, 1, 2]]), "has an area"),
    ],
)  # fmt: skip
def test_what_is_no_mesh_is_one_line(tmp_path, name, make, said):
    make(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as found:
        read_shape(tmp_path / name, cells=CELLS)
    assert "\n" not in str(found.value) and name in str(found.value)
    with pytest.raises(ValueError, match="--turn-deg must be a number"):
        read_shape(tmp_path / name, turn_deg=float("nan"))
