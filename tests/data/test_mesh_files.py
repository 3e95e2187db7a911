"""What trimesh leaves out in silence is read, or refused with its cause."""

import io
import json
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from dsd_jax.data import mesh_files
from dsd_jax.data.meshes import read_mesh

RED = Image.new("RGB", (16, 16), (250, 0, 0))


def textured(material):
    mesh = trimesh.creation.box()
    mesh.visual = TextureVisuals(uv=np.full((8, 2), 0.5), material=material)
    return mesh


@pytest.fixture
def edited(tmp_path):
    """(what is done to the JSON of a red box's GLB and to its binary chunk) -> file."""
    textured(PBRMaterial(baseColorTexture=RED)).export(tmp_path / "box.glb")

    def edited(change=lambda header: None, data=lambda binary: binary):
        whole = (tmp_path / "box.glb").read_bytes()
        length = struct.unpack_from("<I", whole, 12)[0]
        header, binary = json.loads(whole[20 : 20 + length]), data(whole[28 + length :])
        change(header)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
        (tmp_path / "edited.glb").write_bytes(
            struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
        )
        return tmp_path / "edited.glb"

    return edited


def refused(path) -> str:
    with pytest.raises(ValueError, match=f"^{path.name} is not readable: ") as error:
        read_mesh(path)
    assert "\n" not in str(error.value)
    return str(error.value).partition("readable: ")[2]


def texture_of(header):
    return header["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]


def test_whole_textures_are_read(edited):
    def same_place(header):
        texture_of(header)["extensions"] = {"KHR_texture_transform": {"scale": [1, 1]}}

    for change in (lambda header: None, same_place):
        assert np.unique(read_mesh(edited(change)).face_rgb, axis=0).tolist() == [[250, 0, 0]]


def test_corrupt_textures(edited):
    png = b"\x89PNG"
    assert "cannot be decoded" in refused(edited(data=lambda b: b.replace(png, b"none")))

    def cut(header):
        view = header["bufferViews"][header["images"][0]["bufferView"]]
        view["byteLength"] -= 30

    assert "cannot be decoded" in refused(edited(cut))
    ktx = b"\xabKTX 20\xbb\r\n\x1a\n"
    assert "KTX2" in refused(edited(data=lambda b: b.replace(png + b"\r\n\x1a\n\0\0\0\r", ktx)))

    def gone(header):
        header["images"][0] = {"uri": "my%20red.png"}

    assert refused(edited(gone)).endswith("my%20red.png cannot be decoded: it is not there")


@pytest.mark.parametrize(
    ("extensions", "said"),
    [
        ({"KHR_texture_basisu": {"source": 0}}, "KTX2"),
        ({"EXT_texture_avif": {"source": 0}}, "EXT_texture_avif"),
        ({}, "needs a picture"),
    ],
)
def test_textures_of_other_formats(edited, extensions, said):
    assert said in refused(edited(lambda h: h.update(textures=[{"extensions": extensions}])))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extensions": {"KHR_texture_transform": {"offset": [0.5, 0]}}}, "is transformed"),
        ({"extensions": {"KHR_texture_transform": {"rotation": 1.0}}}, "is transformed"),
        ({"extensions": {"KHR_texture_transform": {"texCoord": 1}}}, "coordinates other"),
        ({"texCoord": 1}, "coordinates other"),
    ],
)
def test_textures_that_are_moved(edited, change, said):
    assert said in refused(edited(lambda header: texture_of(header).update(change)))


def test_compressed_and_unknown(edited, monkeypatch):
    def needs(name):
        return edited(lambda header: header.update(extensionsRequired=[name]))

    assert "compressed with meshopt" in refused(needs("EXT_meshopt_compression"))
    assert "needs EXT_of_mars" in refused(needs("EXT_of_mars"))

    def draco(header):
        header["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": {}}

    monkeypatch.setattr(mesh_files, "find_spec", lambda name: None)
    assert "pip install DracoPy" in refused(edited(draco))

    def quantised(header):
        at = header["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]
        header["accessors"][at] |= {"componentType": 5123, "normalized": True}

    assert "TEXCOORD_0 are normalised" in refused(edited(quantised))

    def quantised_places(header):
        at = header["meshes"][0]["primitives"][0]["attributes"]["POSITION"]
        header["accessors"][at] |= {"componentType": 5122, "normalized": True}

    file = edited(quantised_places)
    assert "POSITION are normalised" in refused(file)
    with pytest.raises(ValueError, match="POSITION are normalised"):  # colours are not looked at
        mesh_files.check_triangles(file)


def test_draco_is_decoded_where_its_package_is(tmp_path):
    pytest.importorskip("DracoPy")
    mesh = textured(PBRMaterial(baseColorTexture=RED))
    mesh.export(tmp_path / "box.glb", extension_draco=True)
    item = read_mesh(tmp_path / "box.glb")
    assert len(item.faces) == 12 and (item.face_rgb == [250, 0, 0]).all()


def test_obj_and_ply_name_their_textures(tmp_path):
    textured(SimpleMaterial(image=RED, diffuse=[255] * 4)).export(tmp_path / "box.obj")
    assert (read_mesh(tmp_path / "box.obj").face_rgb == [250, 0, 0]).all()
    (picture,) = tmp_path.glob("*.png")
    picture.write_bytes(picture.read_bytes()[:40])
    assert f"texture {picture.name} cannot be decoded" in refused(tmp_path / "box.obj")
    picture.unlink()
    assert refused(tmp_path / "box.obj").endswith("it is not there")
    for library in tmp_path.glob("*.mtl"):
        library.unlink()
    assert "which is not there" in refused(tmp_path / "box.obj")

    text = trimesh.creation.box().export(file_type="ply", encoding="ascii").decode()
    text = text.replace("element vertex", "comment TextureFile skin.png\nelement vertex", 1)
    (tmp_path / "box.ply").write_text(text)
    assert "texture skin.png cannot be decoded: it is not there" in refused(tmp_path / "box.ply")
    skin = io.BytesIO()
    RED.save(skin, "png")
    (tmp_path / "skin.png").write_bytes(skin.getvalue())
    assert len(read_mesh(tmp_path / "box.ply").faces) == 12
