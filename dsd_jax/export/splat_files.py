"""Gaussian splats as the PLY that 3DGS writes (Kerbl et al. 2023): what splat programs open.

A vertex is x y z, nx ny nz (zeros), f_dc_0..2, opacity (logit), scale_0..2 (log) and rot_0..3 (w x
y z); its colour is 0.5 + f_dc / (2 sqrt(pi)), sRGB. Such files have y down, and programs that show
them give them half a turn about z. So do `save` and `load`: there splats stand as the mesh does.
"""

from pathlib import Path

import numpy as np

from dsd_jax.files import Damaged, atomic_path, shortened
from dsd_jax.rendering.splats import Splats

# The spherical harmonic of degree 0.
_DC = 0.5 / np.sqrt(np.pi)
_COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *(f"scale_{i}" for i in range(3)),
    *(f"rot_{i}" for i in range(4)),
)


def save(path: str | Path, splats: Splats) -> None:
    """Write splats, y up, atomically. Raises ValueError where `path` does not end in .ply."""
    from plyfile import PlyData, PlyElement

    path = Path(path)
    if path.suffix.lower() != ".ply":
        raise ValueError(f"{path} must end in .ply")
    centres, rotations = _half_turn(splats)
    colours = (np.clip(splats.colours, 0, 1) - 0.5) / _DC
    table = np.concatenate([
        centres, np.zeros_like(centres), colours, np.asarray(splats.logits)[:, None],
        splats.log_scales, rotations / np.linalg.norm(rotations, axis=1, keepdims=True),
    ], 1)  # fmt: skip
    rows = np.ascontiguousarray(table, "<f4").view([(name, "<f4") for name in _COLUMNS])[:, 0]
    with atomic_path(path) as temporary:
        PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(str(temporary))


def load(path: str | Path) -> Splats:
    """Read what `save` wrote: NumPy's arrays. Raises ValueError where that is not what it is."""
    from plyfile import PlyData, PlyParseError

    try:
        with Path(path).open("rb") as file:
            vertex = PlyData.read(file)["vertex"]
        columns = [np.asarray(vertex[name], np.float32) for name in _COLUMNS]
    except (PlyParseError, KeyError, ValueError) as error:
        raise Damaged(path, f"it holds no splats ({shortened(error)})") from None
    table = np.stack(columns, -1)
    found = Splats(
        table[:, :3], table[:, 10:13], table[:, 13:], table[:, 9], 0.5 + _DC * table[:, 6:9]
    )
    centres, rotations = _half_turn(found)
    return found._replace(centres=centres, rotations=rotations)


def _half_turn(splats: Splats) -> tuple[np.ndarray, np.ndarray]:
    """Centres and rotations after half a turn about z, by the product of quaternions."""
    w, x, y, z = np.asarray(splats.rotations).T
    turned = np.asarray(splats.centres) * np.array([-1, -1, 1], np.float32)
    return turned, np.stack([-z, -y, x, w], -1)
