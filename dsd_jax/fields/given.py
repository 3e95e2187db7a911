"""A field whose shape is given, and whose colours are free: what retexturing optimises.

Letters: n points, f features, g grid points along an axis of the box [-1, 1]^3 (x, y, z), t
triangles, p vertices. Lengths are in world units.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsd_jax.fields.base import Field
from dsd_jax.fields.hash_grid import encode
from dsd_jax.fields.surface import laplace_density
from dsd_jax.files import atomic_path

# Cells along an axis of the grid of distances.
CELLS = 192
# Up to so many cells from the surface a file tells distances.
_KEPT = 8
# How far apart few samples of a ray are.
_APART = 0.02


class GivenShape(NamedTuple):
    """A shape that is to be kept.

    Attributes:
        distance: [g, g, g] signed distance to its surface, negative inside.
        vertices: [p, 3] of its triangles, in world coordinates.
        faces: [t, 3] counter-clockwise from outside; those of a sheet are there from both sides.
        scale, origin: what gives the file's own coordinates: scale * (world - origin).
        name: of the file.
        doubts: what a user should know of it, a phrase each.
    """

    distance: Float[np.ndarray, "g g g"]
    vertices: Float[np.ndarray, "p 3"]
    faces: Int[np.ndarray, "t 3"]
    scale: float
    origin: Float[np.ndarray, "3"]
    name: str = "mesh"
    doubts: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        """Along an axis of the grid; g - 1."""
        return len(self.distance) - 1

    def save(self, path: Path) -> None:
        """Write it, distances beyond `_KEPT` cells cut off, in 16 bits."""
        near = np.clip(self.distance * (self.cells / 2), -_KEPT, _KEPT).astype(np.float16)
        rest = {name: getattr(self, name) for name in ("vertices", "faces", "scale", "origin")}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, distance=near, **rest)

    @classmethod
    def load(cls, path: Path, cells: int) -> "GivenShape":
        """What `save` wrote.

        Raises FileNotFoundError, or ValueError where it is damaged or has other cells.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        try:
            with np.load(path) as found:
                distance = found["distance"].astype(np.float32) * np.float32(2 / cells)
                rest = found["vertices"], found["faces"], float(found["scale"]), found["origin"]
        except (KeyError, OSError, ValueError, BadZipFile) as error:
            raise ValueError(f"{path} is not a readable shape: {error}") from None
        if distance.shape != (cells + 1,) * 3:
            raise ValueError(f"{path} has {len(distance) - 1} cells, and its field {cells}")
        return cls(distance, *rest)

    @property
    def fingerprint(self) -> str:
        """A name for the shape, so that another of the same file name differs."""
        parts = (part.tobytes() for part in (self.distance, self.vertices, self.faces))
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


@dataclass(frozen=True)
class GivenField(Field):
    """Another field's colours on a given surface, whose distance no step changes.

    Density is `laplace_density` of the distance, interpolated on a grid.

    Attributes:
        base: the field that it wraps; of its density nothing is seen.
        cells: along an axis of the grid; g - 1.
        width: of the distribution.
    """

    base: Field
    cells: int = CELLS
    width: float = 0.0005

    @property
    def resolution(self) -> int:
        """Cells along an axis of the grid."""
        return self.cells

    def init(self, key: jax.Array) -> dict[str, Any]:
        """{"base": ..., "distance": [g, g, g]}: without matter, until `holding` puts it there."""
        empty = jnp.full((self.cells + 1,) * 3, 1.0, jnp.float32)
        return {"base": self.base.init(key), "distance": empty}

    def holding(
        self, params: dict[str, Any], distance: Float[Array | np.ndarray, "g g g"]
    ) -> dict[str, Any]:
        """The parameters with a shape in them."""
        return {**params, "distance": jnp.asarray(distance, jnp.float32)}

    def apply(
        self, params: dict[str, Any], points: Float[Array, "n 3"], stage: Any = None
    ) -> tuple[Float[Array, "n"], Float[Array, "n f"]]:
        """Density of the shape, and the base's features."""
        _, features = self.base.apply(params["base"], points, stage)
        return self._density(params, points, self.width), features

    def _density(self, params: dict[str, Any], points: Float[Array, "n 3"], width: float):
        density = laplace_density(self.distance(params, points), width)
        return jnp.where(jnp.sum(points * points, -1) <= 1, density, 0)

    def proposal(
        self, params: dict[str, Any], stage: Any = None
    ) -> Callable[[Array], Array] | None:
        """The density if the surface were as wide as samples are apart: nothing thin is missed."""
        return partial(self._density, params, width=max(self.width, _APART))

    def distance(self, params: dict[str, Any], points: Float[Array, "n 3"]) -> Float[Array, "n"]:
        """Signed distance of points; nothing is differentiated by its grid."""
        grid = jax.lax.stop_gradient(params["distance"])
        table = grid.transpose(2, 1, 0).reshape(-1, 1)
        return encode((table,), points, (self.cells,))[:, 0]

    def parameter_groups(self, params: dict[str, Any]) -> dict[str, Any]:
        """Those of `base`; the distance is "fixed"."""
        return {"base": self.base.parameter_groups(params["base"]), "distance": "fixed"}

    def stage(self, progress: Any, final: bool = False) -> Any:
        """The base's."""
        return self.base.stage(progress, final)

    def settled(self, key: jax.Array, params: dict[str, Any], stage: Any) -> dict[str, Any]:
        """The base's, in the same shape."""
        return {**params, "base": self.base.settled(key, params["base"], stage)}
