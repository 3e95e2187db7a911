"""What a mesh file holds that trimesh would leave out without a word: found before it is read.

A texture that cannot be decoded would leave an object white, and compressed triangles none.
"""

import base64
import io
import json
import struct
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dsd_jax.models import foreign

_DRACO, _TRANSFORM = "KHR_draco_mesh_compression", "KHR_texture_transform"
# Extensions that a file may need: trimesh reads them, they change no colour, or `_gltf` looks.
_FINE = {_TRANSFORM, "EXT_texture_webp", "KHR_texture_basisu", "KHR_mesh_quantization",
         "KHR_lights_punctual", "KHR_xmp_json_ld"}  # fmt: skip
_FLOAT = 5126
GLTF = (".glb", ".gltf")
# Errors of a reader that stumbles: what they say is of its own code.
_SILENT = (KeyError, NameError, AttributeError, AssertionError, TypeError, struct.error)


def check(path: Path) -> None:
    """Raise where colours or triangles of a .glb, .gltf, .obj or .ply file would be lost.

    Raises:
        ValueError: says what is lost and, where there is one, the mend.
        Exception: whatever a damaged file gives rise to.
    """
    header, binary = _opened(path)
    _check_triangles(header, path)
    suffix = path.suffix.lower()
    if suffix in GLTF:
        _gltf(header, binary, path)
    elif suffix == ".obj":
        for library in _named(path, b"mtllib"):
            if not library.is_file():
                raise ValueError(f"its colours are in {library.name}, which is not there")
            for picture in _named(library, b"map_kd"):
                _decode(picture.name, picture.read_bytes)
    else:
        for picture in _named(path, b"comment texturefile"):
            _decode(picture.name, picture.read_bytes)


def check_triangles(path: Path) -> None:
    """Raise, as `check` does, where triangles alone would be lost, or no mesh is in the file."""
    _check_triangles(_opened(path)[0], path)


def _opened(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON of a glTF file and its binary chunk, nothing of others.

    Raises ValueError where something else stands in the file's place.
    """
    what = foreign.not_itself(path)
    if what is not None:
        raise ValueError(f"it is {what}")
    suffix = path.suffix.lower()
    if suffix not in GLTF:
        return {}, b""
    return _glb(path) if suffix == ".glb" else (json.loads(path.read_bytes()), b"")


def _check_triangles(header: dict[str, Any], path: Path) -> None:
    """Raise ValueError for triangles that trimesh does not read of a glTF file."""
    for name in header.get("extensionsRequired", ()):
        if "meshopt_compression" in name:
            raise ValueError(f"it is compressed with meshopt ({name}); save it uncompressed")
        if name not in _FINE and name != _DRACO and not name.startswith("KHR_materials_"):
            raise ValueError(f"it needs {name}, which is not read; save it without")
    primitives = _primitives(header)
    extensions = [one.get("extensions", ()) for one in primitives]
    if find_spec("DracoPy") is None and any(_DRACO in names for names in extensions):
        raise ValueError(
            "it is compressed with Draco: pip install DracoPy, or save it uncompressed"
        )
    for one in primitives:
        _check_floats(header, one, "POSITION")
    for uri in (buffer.get("uri", "data:") for buffer in header.get("buffers", ())):
        if not uri.startswith("data:") and not (path.parent / unquote(uri)).is_file():
            raise ValueError(f"its triangles are in {unquote(uri)}, which is not there")


def why(error: Exception) -> str:
    """What a reader's error says of the file, in one line; of those that say nothing, that."""
    said = " ".join(str(error).split())
    if not said or isinstance(error, _SILENT):
        return "it is damaged, or not what its suffix says"
    return said


def _named(path: Path, key: bytes) -> Iterator[Path]:
    """The files that lines of a file name, each after a key; of a PLY file those of its header."""
    with path.open("rb") as file:
        for line in file:
            words = line.strip()
            if words == b"end_header":
                return
            if words.lower().startswith((key + b" ", key + b"\t")):
                yield path.parent / words[len(key) :].strip().decode("utf-8", "replace")


def _decode(name: str, read: Callable[[], bytes]) -> None:
    """Raise ValueError where a texture is not there or is no whole picture."""
    from PIL import Image

    try:
        data = read()
        if data[1:7] == b"KTX 20":
            raise ValueError("it is KTX2, which is not read; save the file with PNG or JPEG")
        Image.open(io.BytesIO(data)).load()
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        said = "it is not there" if isinstance(error, FileNotFoundError) else error
        raise ValueError(f"its texture {name} cannot be decoded: {said}") from None


# ---- glTF --------------------------------------------------------------------------------------


def _glb(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON of a GLB file, and its binary chunk."""
    data = path.read_bytes()
    if data[:4] != b"glTF":
        raise ValueError("it is no GLB file")
    chunks, at = {}, 12
    while at + 8 <= len(data):
        length, kind = struct.unpack_from("<I4s", data, at)
        chunks.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length
    return json.loads(chunks[b"JSON"]), chunks.get(b"BIN\0", b"")


def _primitives(header: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for mesh in header.get("meshes", ()) for one in mesh["primitives"]]


def _gltf(header: dict[str, Any], binary: bytes, path: Path) -> None:
    """Raise ValueError for colours that trimesh does not read of a glTF file."""
    primitives = _primitives(header)
    for primitive in primitives:
        if _texture(header, primitive):
            _check_floats(header, primitive, "TEXCOORD_0")
    pictures = {_source(header, found) for p in primitives if (found := _texture(header, p))}
    for index in sorted(pictures):
        image = header["images"][index]
        name = image.get("name") or image.get("uri", "")[:40] or str(index)
        _decode(name, lambda image=image: _bytes(header, image, binary, path))


def _check_floats(header: dict[str, Any], primitive: dict[str, Any], name: str) -> None:
    """Raise ValueError for an attribute whose integers trimesh does not scale."""
    at = primitive.get("attributes", {}).get(name)
    accessor = {} if at is None else header["accessors"][at]
    if accessor.get("normalized") and accessor["componentType"] != _FLOAT:
        raise ValueError(f"its {name} are normalised integers; save it without quantization")


def _texture(header: dict[str, Any], primitive: dict[str, Any]) -> dict[str, Any] | None:
    """What a primitive's material says of its texture of colours; None without one."""
    if "material" not in primitive:
        return None
    material = header["materials"][primitive["material"]]
    glossy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
    plain = material.get("pbrMetallicRoughness", {})
    return glossy.get("diffuseTexture") or plain.get("baseColorTexture")


def _source(header: dict[str, Any], found: dict[str, Any]) -> int:
    """Which image a texture shows. Raises ValueError where it is not shown as it is."""
    turned = found.get("extensions", {}).get(_TRANSFORM, {})
    moved = turned.get("offset", [0, 0]) != [0, 0] or turned.get("scale", [1, 1]) != [1, 1]
    if moved or turned.get("rotation"):
        raise ValueError(f"its texture is transformed ({_TRANSFORM}), which is not read; bake it")
    if turned.get("texCoord", found.get("texCoord", 0)):
        raise ValueError("its texture has coordinates other than the first, which are not read")
    texture = header["textures"][found["index"]]
    others = texture.get("extensions", {})
    index = others.get("EXT_texture_webp", {}).get("source", texture.get("source"))
    if index is None and "KHR_texture_basisu" in others:
        raise ValueError("its texture is KTX2 (KHR_texture_basisu); save it with PNG or JPEG")
    if index is None:
        raise ValueError(
            f"its texture needs {' or '.join(others) or 'a picture'}; save it with PNG"
        )
    return index


def _bytes(header: dict[str, Any], image: dict[str, Any], binary: bytes, path: Path) -> bytes:
    """An image's file."""
    if "bufferView" not in image:
        return _of_uri(image["uri"], path)
    view = header["bufferViews"][image["bufferView"]]
    uri = header["buffers"][view["buffer"]].get("uri")
    data = binary if uri is None else _of_uri(uri, path)
    start = view.get("byteOffset", 0)
    return data[start : start + view["byteLength"]]


def _of_uri(uri: str, path: Path) -> bytes:
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2])
    return (path.parent / unquote(uri)).read_bytes()
