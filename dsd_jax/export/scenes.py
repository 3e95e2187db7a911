"""An optimised object on disk: field.safetensors, and field.json that says how to read it.

Where its shape was given, that is in shape.npz beside them.

scene = load_scene("runs/a-house-1a2b3c4d/seed_0003")
density, albedo = scene.field_fn(points)
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from dsd_jax import __version__
from dsd_jax.fields.base import Field, completed, uncompleted
from dsd_jax.fields.given import GivenField, GivenShape
from dsd_jax.fields.radiance import HashGridField
from dsd_jax.fields.surface import SurfaceField
from dsd_jax.files import (
    AGAIN,
    Damaged,
    plain,
    read_json,
    reading,
    sha256_of,
    shortened,
    write_json,
)
from dsd_jax.pytrees import from_named, load_leaves, named_leaves, save_tree
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.scene import Scene
from dsd_jax.rendering.volume import Rendering

FILES = _WEIGHTS, _DESCRIPTION, _SHAPE = "field.safetensors", "field.json", "shape.npz"
# The name in the first of what `SavedScene.occupied` holds, eight cells a byte.
_OCCUPIED = "occupied"

# The fields that are read without being given, by what field.json calls their kind.
KINDS: dict[str, type[Field]] = {
    "hash_grid": HashGridField,
    "surface": SurfaceField,
    "given": GivenField,
}
_WRAPPERS = ("surface", "given")


class SavedScene(NamedTuple):
    """A scene with its parameters.

    Attributes:
        params: float32 arrays, {"field": ..., "background": ...}.
        stage: what `Field.stage` gave with `final`, in Python's floats; None means all of it.
        shape: that a `GivenField` holds.
        occupied: where its pictures are sampled, see `occupancy.OccupancyGrid`; None: not known.
    """

    scene: Scene
    params: dict[str, Any]
    stage: Any = None
    shape: GivenShape | None = None
    occupied: Bool[np.ndarray, "g g g"] | None = None

    def field_fn(self, points: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Points [n, 3] in the unit ball -> density [n], features [n, f], first the albedo."""
        return self.scene.field_fn(self.params, self.stage)(points)

    def render(self, camera: Camera, key: jax.Array | None = None, **settings) -> Rendering:
        """`Scene.render` of this object, for instance with height, width and samples_per_ray."""
        return self.scene.render(self.params, camera, key, stage=self.stage, **settings)


def save_scene(
    folder: str | Path, saved: SavedScene, optimised: Mapping[str, Any] | None = None
) -> None:
    """Write a scene into `folder`, which must exist.

    Args:
        optimised: what else is known of how it was made, for `optimised_of`.
    """
    stage, leaves = saved.stage, {**saved.params}
    if saved.shape is not None:
        leaves["field"] = _without_shape(leaves["field"])
        saved.shape.save(Path(folder) / _SHAPE)
    if saved.occupied is not None:
        leaves[_OCCUPIED] = np.packbits(saved.occupied, axis=-1)
    save_tree(Path(folder) / _WEIGHTS, leaves)
    description = {
        "sha256": sha256_of(Path(folder) / _WEIGHTS),
        "optimised": {**(optimised or {})},
        "version": __version__,
        **describe_field(saved.scene.field),
        "background": saved.scene.background,
        "stage": None if stage is None else named_leaves(stage),
    }
    write_json(Path(folder) / _DESCRIPTION, description)


def optimised_of(folder: str | Path) -> dict[str, Any]:
    """What `save_scene` was told of how a scene was made. Raises as `files.read_json`."""
    return read_json(Path(folder) / _DESCRIPTION, optimised=dict)["optimised"]


def load_scene(folder: str | Path, field: Any = None) -> SavedScene:
    """Read what `save_scene` wrote.

    Args:
        field: the very field that was saved; a field that is not dsd_jax's own must be given.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or of an older version, or the two do not belong together, or
            `field` is missing or another; says where.
    """
    path = Path(folder) / _DESCRIPTION
    described = _read(path)
    field = _known(path, described) if field is None else _same(path, described, field)
    with reading(path):
        scene = Scene(field, described["background"])
        stage = _restored(scene.field, described["stage"])
    weights = Path(folder) / _WEIGHTS
    like, own, shape = jax.eval_shape(scene.init, jax.random.key(0)), scene.field, None
    with _mended():
        leaves = load_leaves(weights)
        if described.get("sha256", "") not in ("", sha256_of(weights)):
            raise Damaged(weights, "its numbers are not those that were written")
        occupied = _unpacked(leaves.pop(_OCCUPIED, None))
        if isinstance(own, GivenField):
            shape = GivenShape.load(Path(folder) / _SHAPE, own.cells)
            like = {**like, "field": _without_shape(like["field"])}
        params = from_named(weights, leaves, like)
    if isinstance(own, GivenField) and shape is not None:
        params = {**params, "field": own.holding(params["field"], shape.distance)}
    return SavedScene(scene, params, stage, shape, occupied)


def _without_shape(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a `GivenField` but for its distance."""
    return {name: own for name, own in params.items() if name != "distance"}


def _unpacked(packed: np.ndarray | None) -> Bool[np.ndarray, "g g g"] | None:
    return None if packed is None else np.unpackbits(packed, -1, len(packed)).astype(bool)


def describe_field(field: Field) -> dict[str, Any]:
    """{"kind": ..., "field": its own numbers (and text) as JSON types, a wrapped one's inside}."""
    own, numbers = uncompleted(field), {}
    known = [kind for kind, cls in KINDS.items() if type(own) is cls]
    for part in dataclasses.fields(own) if dataclasses.is_dataclass(own) else ():
        value = getattr(own, part.name)
        with contextlib.suppress(TypeError):  # what has no place in JSON
            wrapped = bool({*known} & {*_WRAPPERS}) and part.name == "base"
            numbers[part.name] = describe_field(value) if wrapped else plain(value)
    kind = known[0] if known else f"{type(own).__module__}:{type(own).__qualname__}"
    return {"kind": kind, "field": numbers}


@contextlib.contextmanager
def _mended() -> Iterator[None]:
    """What is wrong with a file of numbers is said with the mend."""
    try:
        yield
    except Damaged:
        raise
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{error}; {AGAIN}") from None


def _read(path: Path) -> dict[str, Any]:
    """What field.json says."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a seed's folder of a run")
    described = read_json(path)
    if "field" in described and "kind" not in described:
        raise ValueError(f"{path} is of an older version of dsd_jax; make the object again")
    return described


def _known(path: Path, described: dict[str, Any]) -> Field:
    """The field, where it is one of `KINDS`."""
    kind = described.get("kind")
    if ":" in str(kind):
        raise ValueError(f"{path} is of a {kind}, which must be given: load_scene(folder, field)")
    with reading(path):
        return field_like(str(kind), described["field"])


def field_like(kind: str, numbers: Mapping[str, Any]) -> Field:
    """The field of `KINDS` that `describe_field` described. Raises KeyError, TypeError."""
    given = dict(numbers)
    if kind in _WRAPPERS:
        given["base"] = field_like(given["base"]["kind"], given["base"]["field"])
    return KINDS[kind](**given)


def _same(path: Path, described: dict[str, Any], field: Any) -> Field:
    """The field that was given, where it is what field.json describes."""
    field = completed(field)
    for name, value in describe_field(field).items():
        found = described.get(name)
        if found != value:
            if isinstance(found, dict) and isinstance(value, dict):
                names = [own for own in {**found, **value} if found.get(own) != value.get(own)]
                found, value = ({own: each.get(own) for own in names} for each in (found, value))
            raise ValueError(
                f"{path} is of another field: {shortened(found)}, not {shortened(value)}; give "
                f"the one that was saved; or, where the file is damaged, {AGAIN}"
            )
    return field


def _restored(field: Field, numbers: dict[str, Any] | None) -> Any:
    """The stage whose `named_leaves` were written."""
    if numbers is None:
        return None
    like = field.stage(1.0, final=True)
    if not isinstance(numbers, dict) or named_leaves(like).keys() != numbers.keys():
        raise ValueError(f"the field has no stage {numbers}")
    leaves = [float(numbers[name]) for name in named_leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
