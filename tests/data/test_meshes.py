"""Meshes with every kind of colour, made by trimesh and read back from files."""

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from dsd_jax.data.meshes import names_from_file, read_mesh


def srgb(linear):
    return 255 * (1.055 * (np.asarray(linear) / 255) ** (1 / 2.4) - 0.055)


def box(visual=None):
    mesh = trimesh.creation.box()
    if visual is not None:
        mesh.visual = visual
    return mesh


def test_gltf_factors_are_linear(tmp_path):
    material = PBRMaterial(baseColorFactor=[0.5, 0.25, 1.0, 1.0])
    box(TextureVisuals(material=material)).export(tmp_path / "RedBox_01.glb")
    item = read_mesh(tmp_path / "RedBox_01.glb")
    assert (item.caption, item.category, item.colourless) == ("red box", "box", False)
    assert item.faces.shape == (12, 3) and item.face_rgb.dtype == np.uint8
    np.testing.assert_allclose(item.face_rgb, [srgb([128, 64, 255])] * 12, atol=1)


def test_textures_are_sampled_on_each_face(tmp_path):
    pixels = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], np.uint8)
    vertices = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0], [2, 1, 0]]
    uv = [[0.1, 0.1], [0.2, 0.1], [0.2, 0.2], [0.6, 0.6], [0.9, 0.6], [0.9, 1.9]]
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [3, 4, 5]], process=False)
    mesh.visual = TextureVisuals(
        uv=uv, material=PBRMaterial(baseColorTexture=Image.fromarray(pixels))
    )
    mesh.export(tmp_path / "quad.glb")
    item = read_mesh(tmp_path / "quad.glb")
    # First face: bottom left. Second: its four points at v = 1.03, 0.82, 0.82 and 1.46 lie
    # right, in the rows bottom (it wraps), top, top, bottom.
    assert item.face_rgb.tolist() == [[0, 0, 250], [125, 250, 0]]


def test_obj_materials_are_srgb_unless_said_otherwise(tmp_path):
    visual = TextureVisuals(
        uv=np.zeros((8, 2)), material=SimpleMaterial(diffuse=[200, 100, 50, 255])
    )
    box(visual).export(tmp_path / "crate.obj")
    assert read_mesh(tmp_path / "crate.obj").face_rgb.tolist() == [[200, 100, 50]] * 12
    linear = read_mesh(tmp_path / "crate.obj", linear=True)
    np.testing.assert_allclose(linear.face_rgb, [srgb([200, 100, 50])] * 12, atol=1)


def test_ply_face_colours_and_colourless_meshes(tmp_path):
    mesh = box()
    mesh.visual.face_colors = [[10 * k, 0, 255, 255] for k in range(12)]
    mesh.export(tmp_path / "dice.ply")
    found = read_mesh(tmp_path / "dice.ply")
    assert found.face_rgb.tolist() == [[10 * k, 0, 255] for k in range(12)]
    box().export(tmp_path / "plain.ply")
    plain = read_mesh(tmp_path / "plain.ply")
    assert plain.colourless and plain.face_rgb.tolist() == [[204, 204, 204]] * 12


def test_a_scene_is_one_object_with_its_transforms(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(box(), transform=trimesh.transformations.translation_matrix([3, 0, 0]))
    coloured = box()
    coloured.visual.vertex_colors = [255, 0, 0, 255]
    scene.add_geometry(coloured)
    scene.export(tmp_path / "two.glb")
    item = read_mesh(tmp_path / "two.glb")
    assert len(item.faces) == 24 and not item.colourless
    corners = item.vertices[item.faces]
    assert corners.min((0, 1)).tolist() == [-0.5, -0.5, -0.5]
    assert corners.max((0, 1)).tolist() == [3.5, 0.5, 0.5]
    right = corners[:, :, 0].mean(1) > 1.5
    assert np.unique(item.face_rgb[right]).tolist() == [204]
    assert np.unique(item.face_rgb[~right], axis=0).tolist() == [[255, 0, 0]]


def test_z_up_is_turned(tmp_path):
    mesh = trimesh.creation.box(bounds=[[0, -2, 0], [1, 0, 3]])
    mesh.export(tmp_path / "tower.ply")
    vertices = read_mesh(tmp_path / "tower.ply", z_up=True).vertices
    assert vertices.min(0).tolist() == [0, 0, 0] and vertices.max(0).tolist() == [1, 3, 2]


def test_flat_faces_and_unused_vertices_go(tmp_path):
    vertices = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 9, 9], [2, 0, 0]]
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 1, 4]], process=False)
    mesh.export(tmp_path / "flat.ply")
    item = read_mesh(tmp_path / "flat.ply")
    assert len(item.faces) == 1 and len(item.vertices) == 3


def test_large_meshes_are_simplified_and_their_faces_take_the_nearest_colour(tmp_path):
    mesh = trimesh.creation.icosphere(subdivisions=5)
    above = mesh.triangles_center[:, 1] > 0
    mesh.visual.face_colors = np.where(above[:, None], [255, 0, 0, 255], [0, 0, 255, 255])
    mesh.export(tmp_path / "ball.ply")
    item = read_mesh(tmp_path / "ball.ply")
    assert len(mesh.faces) == 20480 and 7000 < len(item.faces) <= 8192
    height = item.vertices[item.faces].mean(1)[:, 1]
    assert (item.face_rgb[height > 0.05] == [255, 0, 0]).all()
    assert (item.face_rgb[height < -0.05] == [0, 0, 255]).all()


@pytest.mark.parametrize("name", ["broken.glb", "empty.ply"])
def test_unusable_files_are_refused_in_one_line(tmp_path, name):
    header = "ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nend_header\n"
    (tmp_path / name).write_text(header if name.startswith("empty") else "not a mesh")
    with pytest.raises(ValueError, match=name) as caught:
        read_mesh(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stem", "caption", "category"),
    [
        ("RedCar_01", "red car", "car"),
        ("log-house with roof", "log house with roof", "house"),
        ("stack of coins", "stack of coins", "stack"),
        ("42", "42", "42"),
    ],
)
def test_names(stem, caption, category):
    assert names_from_file(stem) == (caption, category)


@pytest.mark.parametrize("name", ["x.obj", "x.glb"])
@pytest.mark.parametrize("number", [np.nan, np.inf, 1e39])
def test_a_coordinate_that_is_no_number_is_refused(tmp_path, name, number):
    """As trimesh reads OBJ, its triangles would be gone, or one of its corners at the origin."""
    mesh = box()
    mesh.vertices[0, 0] = number
    with np.errstate(all="ignore"):
        mesh.export(tmp_path / name)
    with pytest.raises(ValueError, match=rf"^{name} is not readable: it holds a coordinate that"):
        read_mesh(tmp_path / name)


def test_vertices_of_two_numbers_are_refused(tmp_path):
    (tmp_path / "short.obj").write_text("v 0 0\nv 1 1\nv 2 2\nf 1 2 3\n")
    with pytest.raises(ValueError, match=r"^short\.obj is not readable: its vertices need three"):
        read_mesh(tmp_path / "short.obj")
