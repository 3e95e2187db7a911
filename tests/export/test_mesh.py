"""Fields become textured meshes, and these look like the fields."""

import dataclasses
import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from dsd_jax.export import mesh, mesh_programs, texture
from dsd_jax.export.field_grid import ExportedField
from dsd_jax.export.mesh import MeshSettings, make_mesh
from dsd_jax.export.model_files import Model, save_model, srgb_to_linear
from dsd_jax.export.raster import sample_texture
from dsd_jax.rendering.cameras import ring

pytestmark = pytest.mark.usefixtures("quick_compilation")
CAMERAS = ring([0, 120, 240], 20, 2.7, 40)
SMALL = MeshSettings(faces=1500, texture_size=128, view_size=64, samples=32)
RED, BLUE = (0.8, 0.1, 0.1), (0.1, 0.2, 0.9)


def box(params, points):
    """A box of half sides params, off the centre: red on the right, where x > 0, and blue on the
    left."""
    away = jnp.abs(points - jnp.array([0.0, 0.1, 0])) - params
    density = 200 / (1 + jnp.exp(120 * away.max(-1)))
    right = points[:, :1] > 0
    return density, jnp.where(right, jnp.array(RED), jnp.array(BLUE))


def nothing(params, points):
    return jnp.zeros(len(points)), jnp.full((len(points), 3), 0.5)


BOX = ExportedField(box, jnp.array([0.5, 0.3, 0.25]), 32)


@pytest.fixture(scope="module")
def textured(quick_compilation):
    return make_mesh(BOX, CAMERAS, SMALL)


def test_the_mesh_looks_like_the_field(textured):
    assert textured.iou.min() > 0.95
    assert textured.psnr.min() > 25
    assert len(textured.model.faces) <= 1500
    assert 1 < textured.threshold < 200 and textured.removed == 0
    report = textured.report()
    assert report["faces"] == len(textured.model.faces)
    assert len(report["silhouette_iou"]) == len(report["psnr_db"]) == 3


def test_it_stands_on_the_origin_and_is_of_unit_size(textured):
    low, high = textured.model.vertices.min(0), textured.model.vertices.max(0)
    np.testing.assert_allclose(low, [-0.5, 0, high[2] * -1], atol=1e-6)
    np.testing.assert_allclose(high, [0.5, 0.6, 0.25], atol=0.03)
    world = textured.model.vertices / textured.scale + textured.origin
    np.testing.assert_allclose(world.max(0), [0.5, 0.4, 0.25], atol=0.045)
    np.testing.assert_allclose(world.min(0), [-0.5, -0.2, -0.25], atol=0.045)


def test_texels_have_the_colour_of_their_place(textured):
    """Also those beside the charts, which bilinear reading touches: no dark seams."""
    model = textured.model
    assert model.texture.shape == (128, 128, 3)
    colours = model.texture.reshape(-1, 3) / 255
    to = np.array([RED, BLUE])
    nearest = np.abs(colours[:, None] - to).max(-1).min(1)
    assert (nearest < 0.02).mean() > 0.9  # the rest mixes the two
    assert (colours.sum(1) > 0.9).all()
    seen = sample_texture(model.texture, model.uv)
    far = np.abs(model.vertices[:, 0]) > 0.1
    expected = np.where(model.vertices[:, :1] > 0, RED, BLUE)
    np.testing.assert_allclose(seen[far], expected[far], atol=0.02)
    np.testing.assert_allclose(model.colours[far] / 255, expected[far], atol=0.02)


def test_colours_may_be_at_the_vertices(textured):
    result = make_mesh(BOX, CAMERAS, dataclasses.replace(SMALL, vertex_colours=True))
    assert result.model.texture is None and result.model.uv is None
    assert len(result.model.vertices) < len(textured.model.vertices)
    assert result.psnr.min() > 25


def test_a_threshold_may_be_given(textured):
    given = dataclasses.replace(SMALL, vertex_colours=True, closing=0)
    thick, thin = (
        make_mesh(BOX, CAMERAS, dataclasses.replace(given, threshold=t)) for t in (1.0, 150.0)
    )
    assert (thick.threshold, thick.closing) == (1.0, 0)
    assert thick.scale < textured.scale < thin.scale


def test_an_empty_field_is_said_to_be_empty():
    with pytest.raises(ValueError, match="the field is empty: nothing in it hides half"):
        make_mesh(ExportedField(nothing, None, 16), CAMERAS, SMALL)


def test_colour_is_what_absorbs_along_the_normal():
    """A red coat, half a cell thick and opaque, over blue; and blue alone."""

    def coated(params, points):
        depth = -points[:, 1]
        density = jnp.where(depth > 0, 1e4, 0.0)
        red = (depth < 0.01)[:, None] & (points[:, :1] > 0)
        return density, jnp.where(red, jnp.array(RED), jnp.array(BLUE))

    points, normals = np.array([[0.5, 0, 0], [-0.5, 0, 0]]), np.array([[0.0, 2, 0]] * 2)
    found = texture.surface_albedo(ExportedField(coated, None, 100), points, normals)
    np.testing.assert_allclose(found, [RED, BLUE], atol=1e-3)


def test_colour_over_nothing_is_that_of_the_nearest_matter():
    def half(params, points):
        """Red matter where x < 0, and what is black and empty elsewhere."""
        there = (points[:, 0] < 0) & (points[:, 1] < 0)
        return 1e3 * there, jnp.array(RED) * there[:, None]

    points = np.array([[-0.2, 0, 0], [0.1, 0, 0], [0.3, 0, 0]])
    normals = np.array([[0.0, 1, 0]] * 3)
    found = texture.surface_albedo(ExportedField(half, None, 64), points, normals)
    np.testing.assert_allclose(found, [RED] * 3, atol=1e-3)


def read_glb(path):
    """What a GLB file describes, and its binary part, read as glTF's specification says."""
    data = path.read_bytes()
    magic, version, length, size, kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    return json.loads(data[20 : 20 + size]), data[20 + size + 8 :]


def floats(description, binary, name):
    """An attribute of the one primitive."""
    primitive = description["meshes"][0]["primitives"][0]
    accessor = description["accessors"][primitive["attributes"][name]]
    view = description["bufferViews"][accessor["bufferView"]]
    start = view["byteOffset"] + accessor.get("byteOffset", 0)
    values = np.frombuffer(binary[start : start + view["byteLength"]], np.float32)
    return values.reshape(accessor["count"], -1)


def test_files_hold_the_model(textured, tmp_path):
    paths = save_model(tmp_path, textured.model, ("glb", "ply", "obj"))
    names = ["mesh.glb", "mesh.mtl", "mesh.obj", "mesh.ply", "mesh.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert sorted(p.name for p in paths) == names
    description, binary = read_glb(tmp_path / "mesh.glb")
    for name, values in {
        "POSITION": textured.model.vertices,
        "NORMAL": textured.model.normals,
        "TEXCOORD_0": textured.model.uv,  # (0, 0) is the upper left corner in glTF too
    }.items():
        np.testing.assert_allclose(floats(description, binary, name), values, atol=1e-6)
    (material,) = description["materials"]
    rough = material["pbrMetallicRoughness"]
    assert rough["metallicFactor"] == 0 and rough["roughnessFactor"] == 1
    assert "baseColorTexture" in rough and "extensions" not in material  # not unlit, that is
    (primitive,) = description["meshes"][0]["primitives"]
    targets = [view.get("target") for view in description["bufferViews"]]
    used = {
        name: targets[description["accessors"][i]["bufferView"]]
        for name, i in (primitive["attributes"] | {"indices": primitive["indices"]}).items()
    }
    assert used.pop("indices") == 34963 and set(used.values()) == {34962}
    assert targets.count(None) == 1  # the texture's
    for name in ("mesh.glb", "mesh.obj", "mesh.ply"):
        found = trimesh.load(tmp_path / name, force="mesh", process=False)
        assert len(found.faces) == len(textured.model.faces)
        np.testing.assert_allclose(found.bounds, bounds(textured.model), atol=1e-5)
    (glb,) = trimesh.load_scene(tmp_path / "mesh.glb", process=False).geometry.values()
    image = np.asarray(glb.visual.material.baseColorTexture.convert("RGB"))
    np.testing.assert_array_equal(image, textured.model.texture)


def test_an_stl_is_for_printers(textured, tmp_path):
    """z is up, the front is towards -y, the longest side is 100 mm; seams of the texture close."""
    save_model(tmp_path, textured.model, ("stl",))
    found = trimesh.load(tmp_path / "mesh.stl")
    (x0, y0, z0), (x1, y1, z1) = 100 * bounds(textured.model)
    np.testing.assert_allclose(found.bounds, [[x0, -z1, y0], [x1, -z0, y1]], atol=1e-3)
    assert found.is_watertight and found.volume > 0
    assert len(found.faces) == len(textured.model.faces)


def test_grids_are_compiled_for_as_many_as_are_searched(monkeypatch):
    """A solid field has no pores to close: one grid, not one for each radius."""
    asked = []
    monkeypatch.setattr(
        mesh_programs.isosurface, "compilations", lambda *given: asked.append(given[-1]) or []
    )
    for solid, closing in ((False, None), (False, 2), (True, None), (True, 2)):
        settings = dataclasses.replace(SMALL, closing=closing)
        mesh_programs.compilations(BOX._replace(solid=solid), CAMERAS, settings)
    assert asked == [4, 1, 1, 1]


def bounds(model):
    return np.stack([model.vertices.min(0), model.vertices.max(0)])


def test_vertex_colours_are_linear_in_glb_alone(tmp_path):
    model = Model(
        np.eye(3), np.array([[0, 1, 2]]), np.full((3, 3), 3**-0.5),
        np.array([[188, 0, 255]] * 3, np.uint8),
    )  # fmt: skip
    save_model(tmp_path, model, ("glb", "ply", "obj"))
    description, binary = read_glb(tmp_path / "mesh.glb")
    primitive = description["meshes"][0]["primitives"][0]
    accessor = description["accessors"][primitive["attributes"]["COLOR_0"]]
    assert accessor["componentType"] == 5121 and accessor["normalized"]
    start = description["bufferViews"][accessor["bufferView"]]["byteOffset"]
    linear = np.frombuffer(binary[start : start + 12], np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(linear, [[128, 0, 255, 255]] * 3)
    material = description["materials"][primitive["material"]]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    plain = trimesh.load(tmp_path / "mesh.ply").visual.vertex_colors
    np.testing.assert_array_equal(plain, [[188, 0, 255, 255]] * 3)
    text = (tmp_path / "mesh.obj").read_text()
    assert "v 1 0 0 0.737255 0 1\n" in text and "f 1//1 2//2 3//3\n" in text
    assert not (tmp_path / "mesh.png").exists()
    assert srgb_to_linear(np.array([0, 255], np.uint8)).tolist() == [0, 255]


def test_placement_by_hand():
    scale, origin = mesh.placement(np.array([[-1.0, 2, 0], [1, 6, 1]]))
    assert scale == 0.25
    np.testing.assert_allclose(origin, [0, 2, 0.5])
