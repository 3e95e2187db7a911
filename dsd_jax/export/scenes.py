"""An optimised object on disk: field.safetensors, and field.json that says how to read it.

scene = load_scene("runs/a-house-1a2b3c4d/seed_0003")
density, albedo = scene.field_fn(points)
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax

from dsd_jax.fields.radiance import DENSITIES, RadianceField
from dsd_jax.files import write_json
from dsd_jax.pytrees import load_tree, save_tree
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.scene import Scene
from dsd_jax.rendering.volume import Rendering

_WEIGHTS, _DESCRIPTION = "field.safetensors", "field.json"


class SavedScene(NamedTuple):
    """A scene with its parameters.

    Attributes:
        params: float32 arrays, {"field": ..., "background": ...}.
        open_levels: how many levels of the hash grid are in use; None means all.
    """

    scene: Scene
    params: dict[str, Any]
    open_levels: float | None

    def field_fn(self, points: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Points [n, 3] in the unit ball -> density [n], albedo [n, 3]."""
        return self.scene.field_fn(self.params, self.open_levels)(points)

    def render(self, camera: Camera, key: jax.Array | None = None, **settings) -> Rendering:
        """`Scene.render` of this object, for instance with height, width and samples_per_ray."""
        return self.scene.render(self.params, camera, key, open_levels=self.open_levels, **settings)


def save_scene(folder: str | Path, saved: SavedScene) -> None:
    """Write a scene into `folder`, which must exist."""
    description = {
        "field": _describe(saved.scene.field),
        "background": saved.scene.background,
        "open_levels": saved.open_levels,
    }
    save_tree(Path(folder) / _WEIGHTS, {**saved.params})
    write_json(Path(folder) / _DESCRIPTION, description)


def load_scene(folder: str | Path) -> SavedScene:
    """Read what `save_scene` wrote.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the two do not belong together; says where.
    """
    path = Path(folder) / _DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a seed's folder of a run")
    try:
        description = json.loads(path.read_text())
        scene = Scene(_field(description["field"]), description["background"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a field: {error!r}") from None
    like = jax.eval_shape(scene.init, jax.random.key(0))
    params = load_tree(Path(folder) / _WEIGHTS, like)
    return SavedScene(scene, params, description["open_levels"])


def _describe(field: RadianceField) -> dict[str, Any]:
    """A field's own attributes as JSON types."""
    names = [f.name for f in dataclasses.fields(field) if f.name not in ("parent", "name")]
    found = [n for n, activation in DENSITIES.items() if activation is field.density_activation]
    if not found:
        raise ValueError(f"only fields with {' or '.join(DENSITIES)} density can be saved")
    return {n: getattr(field, n) for n in names} | {"density_activation": found[0]}


def _field(description: dict[str, Any]) -> RadianceField:
    """The inverse of `_describe`."""
    activation = DENSITIES[description["density_activation"]]
    attributes: dict[str, Any] = description | {"density_activation": activation}
    return RadianceField(**attributes)
