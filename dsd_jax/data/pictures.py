"""Pictures of many objects: random groups of four views, rendered bucket by bucket.

Letters: n objects; g groups of 4 views, 90 degrees apart; v = 4 g views; b objects of a batch;
f faces; l lights; h, w image.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dsd_jax.data.objects import FOV_Y, Objects, buckets, padded
from dsd_jax.rendering.cameras import DISTANCE, orbit
from dsd_jax.rendering.mesh import Lights, render_triangles


class ViewPlan(NamedTuple):
    """Cameras and lights of v views of each of n objects.

    Attributes:
        azimuth: [n, v] radians.
        elevation: [n, v] radians.
        lights: leaves with leading axes [n, v]; the 4 views of a group share theirs.
    """

    azimuth: np.ndarray
    elevation: np.ndarray
    lights: Lights


def plan_views(rng: np.random.Generator, n: int, groups: int) -> ViewPlan:
    """Random groups of four views 90 degrees apart, consecutive along the view axis.

    The first azimuth of a group is uniform; its elevation is -10..45 degrees for 90 % of the
    groups and 45..80 for the others. Lights stay fixed in the world within a group.
    """
    shape = (n, groups)
    first = rng.uniform(-np.pi, np.pi, shape)
    azimuth = first[..., None] + np.arange(4) * (np.pi / 2)
    azimuth = (azimuth + np.pi) % (2 * np.pi) - np.pi
    low = rng.random(shape) < 0.9
    elevation = np.where(low, rng.uniform(-10, 45, shape), rng.uniform(45, 80, shape))
    lights = plan_lights(rng, first)

    def spread(leaf):
        """[n, g, ...] -> [n, 4 g, ...]."""
        return np.repeat(leaf, 4, axis=1).astype(np.float32)

    return ViewPlan(
        azimuth.reshape(n, -1).astype(np.float32),
        spread(np.radians(elevation)),
        jax.tree.map(spread, lights),
    )


def plan_around(azimuths_deg: Sequence[float], elevation_deg: float, n: int) -> ViewPlan:
    """The same cameras around each of n objects; their lights, random, stay where they are.

    Lights are placed for the first camera, as `plan_lights` does.
    """
    azimuth = np.radians(np.tile(azimuths_deg, (n, 1)))
    lights = plan_lights(np.random.default_rng(0), azimuth[:, :1])

    def spread(leaf):
        """[n, 1, ...] -> [n, v, ...]."""
        return np.repeat(leaf, azimuth.shape[1], axis=1).astype(np.float32)

    elevation = np.full_like(azimuth, np.radians(elevation_deg), np.float32)
    return ViewPlan(azimuth.astype(np.float32), elevation, jax.tree.map(spread, lights))


def plan_lights(rng: np.random.Generator, azimuth: np.ndarray) -> Lights:
    """Ambient, a key light near a camera of this azimuth and a weaker fill from the other side.

    A face gets 0.55 to about 1.05 of its own colour. `azimuth` is in radians; its shape leads that
    of every leaf.
    """
    shape = azimuth.shape
    ambient = rng.uniform(0.55, 0.65, shape)
    key = rng.uniform(0.95, 1.05, shape) - ambient
    fill = rng.uniform(0.1, 0.25, shape)
    key_azimuth = azimuth + np.radians(rng.uniform(-60, 60, shape))
    fill_azimuth = key_azimuth + np.radians(rng.uniform(120, 240, shape))
    directions = np.stack(
        [
            _direction(key_azimuth, np.radians(rng.uniform(25, 70, shape))),
            _direction(fill_azimuth, np.radians(rng.uniform(-10, 40, shape))),
        ],
        -2,
    )
    return Lights(ambient, directions, np.stack([key, fill], -1))


def render_batches(
    objects: Objects,
    indices: Sequence[int] | np.ndarray,
    plan: ViewPlan,
    *,
    resolution: int = 128,
    supersample: int = 2,
    batch: int = 8,
    devices: Sequence | None = None,
) -> Iterator[tuple[np.ndarray, jax.Array]]:
    """Render objects in batches of one triangle count each, so that few shapes are compiled.

    Args:
        objects: the file.
        indices: [n] objects to render.
        plan: the views of each of these n.
        batch: objects in one call, over all devices together.
        devices: what to spread the object axis over; default: the first local device.

    Yields:
        (rows, rgba): positions [b] in `indices`, and their pictures [b, v, h, w, 4], uint8,
        premultiplied by alpha, still on the devices (sharded over axis "data").
    """
    chosen = np.asarray(indices)
    mesh = Mesh(np.array(devices or jax.local_devices()[:1]), ("data",))
    batch = -(-batch // mesh.size) * mesh.size
    place = functools.partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec("data")))
    render = _renderer(mesh, resolution, supersample)
    for size, members in buckets(objects.num_faces[chosen]):
        for start in range(0, len(members), batch):
            rows = members[start : start + batch]
            filled = np.resize(rows, batch)  # a short last batch repeats some rows
            triangles, colours = padded(objects, chosen[filled], size)
            views = jax.tree.map(lambda leaf, filled=filled: leaf[filled], plan)
            rgba = render(*place((triangles, colours, views)))
            yield rows, rgba[: len(rows)]


def render_views(
    objects: Objects,
    indices: Sequence[int] | np.ndarray,
    plan: ViewPlan,
    *,
    progress: Callable[[int, int], None] | None = None,
    **settings,
) -> np.ndarray:
    """Pictures [n, v, h, w, 4] uint8 (premultiplied alpha) in host memory, in the given order.

    `progress(done, n)` is called after every batch; other settings as for `render_batches`.
    """
    n, v = plan.azimuth.shape
    resolution = settings.get("resolution", 128)
    pictures = np.empty((n, v, resolution, resolution, 4), np.uint8)
    done = 0
    for rows, rgba in _one_ahead(render_batches(objects, indices, plan, **settings)):
        pictures[rows] = np.asarray(rgba)
        done += len(rows)
        if progress:
            progress(done, n)
    return pictures


def _one_ahead(batches: Iterator) -> Iterator:
    """The same items, each handed out once the next is started: devices work while we copy."""
    waiting = next(batches, None)
    while waiting is not None:
        ready, waiting = waiting, next(batches, None)
        yield ready


@functools.lru_cache(maxsize=8)
def _renderer(mesh: Mesh, resolution: int, supersample: int):
    """Jitted (triangles [b, f, 3, 3], colours [b, f, 3], plan [b, v]) -> uint8 [b, v, h, w, 4]."""

    def view(triangles, colours, plan: ViewPlan):
        camera = orbit(plan.azimuth, plan.elevation, DISTANCE, FOV_Y)
        rgba = render_triangles(triangles, colours, camera, plan.lights, resolution, supersample)
        return jnp.round(rgba * 255).astype(jnp.uint8)

    views = jax.vmap(view, in_axes=(None, None, 0))
    axis = PartitionSpec("data")
    sharded = jax.shard_map(
        jax.vmap(views), mesh=mesh, in_specs=axis, out_specs=axis, check_vma=False
    )
    return jax.jit(sharded)


def _direction(azimuth, elevation):
    """Unit vectors [..., 3] of radians [...]."""
    cos = np.cos(elevation)
    return np.stack([np.sin(azimuth) * cos, np.sin(elevation), np.cos(azimuth) * cos], -1)
