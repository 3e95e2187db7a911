"""A model as a USDZ package, which phones, macOS and film tools open; extra `usd`.

Letters: n vertices, f faces, h w texels. y is up and the front towards +z, as in a GLB, and a unit
is a metre, as there. The material is UsdPreviewSurface, rough and not metallic.
"""

import importlib
import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsd_jax.files import atomic_path

if TYPE_CHECKING:
    from dsd_jax.export.model_files import Model


def check() -> None:
    """Raises ValueError where the library that writes the format is not installed."""
    if importlib.util.find_spec("pxr") is None:
        raise ValueError('.usdz files need the library usd-core: pip install "dsd_jax[usd]"')


def save_usdz(path: Path, model: "Model") -> list[Path]:
    """Write one package, with its texture inside, atomically. Raises ValueError as `check`."""
    check()
    from PIL import Image

    pxr = _library()
    with tempfile.TemporaryDirectory() as folder, atomic_path(path) as temporary:
        layer = Path(folder) / "mesh.usdc"
        stage = pxr.Usd.Stage.CreateNew(str(layer))
        pxr.UsdGeom.SetStageUpAxis(stage, pxr.UsdGeom.Tokens.y)
        pxr.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        root = pxr.UsdGeom.Xform.Define(stage, "/object")
        stage.SetDefaultPrim(root.GetPrim())
        mesh = _mesh(stage, model)
        if model.texture is not None:
            Image.fromarray(model.texture).save(layer.with_name("texture.png"), optimize=True)
        _bind(stage, mesh, model.texture is not None)
        stage.Save()
        package = layer.with_suffix(".usdz")
        if not pxr.UsdUtils.CreateNewUsdzPackage(pxr.Sdf.AssetPath(str(layer)), str(package)):
            raise ValueError(f"{path}: usd-core could not write it")
        temporary.write_bytes(package.read_bytes())
    return [path]


def _library() -> Any:
    """USD's modules, which tell a type checker nothing."""
    for name in ("Sdf", "Usd", "UsdGeom", "UsdShade", "UsdUtils", "Vt"):
        importlib.import_module(f"pxr.{name}")
    return importlib.import_module("pxr")


def _mesh(stage: Any, model: "Model") -> Any:
    pxr = _library()
    mesh = pxr.UsdGeom.Mesh.Define(stage, "/object/mesh")
    mesh.CreatePointsAttr(_of(pxr.Vt.Vec3fArray, model.vertices))
    mesh.CreateFaceVertexCountsAttr(pxr.Vt.IntArray(len(model.faces), 3))
    mesh.CreateFaceVertexIndicesAttr(
        pxr.Vt.IntArray.FromNumpy(model.faces.reshape(-1).astype("i4"))
    )
    mesh.CreateNormalsAttr(_of(pxr.Vt.Vec3fArray, model.normals))
    mesh.SetNormalsInterpolation(pxr.UsdGeom.Tokens.vertex)
    mesh.CreateSubdivisionSchemeAttr(pxr.UsdGeom.Tokens.none)
    ends = np.stack([model.vertices.min(0), model.vertices.max(0)])
    mesh.CreateExtentAttr(_of(pxr.Vt.Vec3fArray, ends))
    values = pxr.UsdGeom.PrimvarsAPI(mesh)
    if model.uv is not None:  # v points up
        kind = pxr.Sdf.ValueTypeNames.TexCoord2fArray
        st = values.CreatePrimvar("st", kind, pxr.UsdGeom.Tokens.vertex)
        st.Set(_of(pxr.Vt.Vec2fArray, model.uv * [1, -1] + [0, 1]))
    else:
        from dsd_jax.export.model_files import srgb_to_linear

        colours = mesh.CreateDisplayColorPrimvar(pxr.UsdGeom.Tokens.vertex)
        colours.Set(_of(pxr.Vt.Vec3fArray, srgb_to_linear(model.colours) / 255))
    return mesh


def _bind(stage: Any, mesh: Any, textured: bool) -> None:
    """The albedo of a texture, or of the vertices, as the base colour of a rough material."""
    pxr = _library()
    types = pxr.Sdf.ValueTypeNames

    def shader(name: str, kind: str) -> Any:
        found = pxr.UsdShade.Shader.Define(stage, f"/object/surface/{name}")
        found.CreateIdAttr(kind)
        return found

    material = pxr.UsdShade.Material.Define(stage, "/object/surface")
    surface = shader("preview", "UsdPreviewSurface")
    surface.CreateInput("roughness", types.Float).Set(1.0)
    surface.CreateInput("metallic", types.Float).Set(0.0)
    reader = shader("reader", f"UsdPrimvarReader_float{'2' if textured else '3'}")
    reader.CreateInput("varname", types.String).Set("st" if textured else "displayColor")
    kind = types.Float2 if textured else types.Float3
    read = reader.CreateOutput("result", kind)
    if textured:
        texture = shader("texture", "UsdUVTexture")
        texture.CreateInput("file", types.Asset).Set(pxr.Sdf.AssetPath("texture.png"))
        texture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
        texture.CreateInput("st", types.Float2).ConnectToSource(read)
        read = texture.CreateOutput("rgb", types.Float3)
    surface.CreateInput("diffuseColor", types.Color3f).ConnectToSource(read)
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    pxr.UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)


def _of(kind: Any, rows: np.ndarray) -> Any:
    return kind.FromNumpy(np.ascontiguousarray(rows, np.float32))
