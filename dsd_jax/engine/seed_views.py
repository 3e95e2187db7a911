"""Pictures of several seeds at once: one compiled call a camera, all seeds in it.

Letters: n seeds, v views, h w pixels, k channels (3, or 4 with opacity).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import UInt8

from dsd_jax.engine import hosts
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.state import State
from dsd_jax.recipe.step import open_levels
from dsd_jax.rendering.cameras import camera_at, ring
from dsd_jax.rendering.scene import Scene
from dsd_jax.rendering.volume import chunk_within

# jitted: (params [n, ...], grids [n, ...], levels, camera) -> pictures [n, h, w, k]
Camerawork = Any

_CHUNK_POINTS = 2**18


@cache
def make_camerawork(
    scene: Scene, size: int, samples: int, mesh: Mesh, opacity: bool = False
) -> Camerawork:
    """A jitted renderer of n seeds from one camera on plain grey: size x size, no randomness.

    With `opacity` that is a fourth channel; the colours stay those on grey.

    The same arguments give the same renderer, so that several runs compile it once.

    The devices of the mesh share the seeds. On each of them seeds run one after the other, and rows
    in chunks, so that memory stays small; the camera is traced: one compilation serves all frames.
    """
    rows = chunk_within(_CHUNK_POINTS, size, size * samples)

    def one(params, grid, levels, camera):
        rendering = scene.render(
            params,
            camera,
            open_levels=levels,
            plain_background=True,
            height=size,
            width=size,
            samples_per_ray=samples,
            occupancy=grid,
            chunk=rows,
            skip_empty=True,
        )
        if opacity:
            rgba = jnp.concatenate([rendering.rgb, rendering.opacity[..., None]], -1)
            return _to_uint8(rgba)
        return _to_uint8(rendering.rgb)

    def all_seeds(params, grids, levels, camera):
        return jax.lax.map(lambda seed: one(seed[0], seed[1], levels, camera), (params, grids))

    seeds, whole = P("seed"), P()
    specs = (seeds, seeds, whole, whole)
    return jax.jit(
        jax.shard_map(all_seeds, mesh=mesh, in_specs=specs, out_specs=seeds, check_vma=False)
    )


def _to_uint8(image: jax.Array) -> jax.Array:
    """`export.pictures.to_uint8`, on the device: a quarter of the bytes is fetched."""
    image = jnp.nan_to_num(image, nan=0.0, posinf=1.0, neginf=0.0)
    return jnp.rint(jnp.clip(image, 0.0, 1.0) * 255.0).astype(jnp.uint8)


def shoot(
    camerawork: Camerawork,
    states: State,
    azimuths_deg,
    elevation_deg: float,
    settings: Settings,
    on_view: Callable[[], None] = lambda: None,
) -> UInt8[np.ndarray, "n v h w k"]:
    """All n seeds that this process has, from each azimuth, in the run's framing.

    Args:
        on_view: called after each view.
    """
    levels = levels_in_use(states, settings)
    cameras = ring(azimuths_deg, elevation_deg, settings.distance, settings.fov_deg)

    def fetched(drawn: Any) -> np.ndarray:
        picture = hosts.own_rows(drawn)
        on_view()
        return picture

    views: list[Any] = []  # pictures, the last one still on the devices
    for i in range(len(azimuths_deg)):
        camera = camera_at(cameras, i)
        views.append(camerawork(states.params, states.occupancy, levels, camera))
        if len(views) > 1:  # the devices draw a view while the one before is fetched
            views[-2] = fetched(views[-2])
    views[-1] = fetched(views[-1])
    return np.stack(views, axis=1)


def compile_camerawork(camerawork: Camerawork, states: State, settings: Settings) -> None:
    """Compile what `shoot` will call; of the states only shapes and shardings matter."""
    camera = camera_at(ring([0.0], 0.0, settings.distance, settings.fov_deg), 0)
    levels = final_levels(settings)
    camerawork.lower(states.params, states.occupancy, levels, camera).compile()


def levels_in_use(states: State, settings: Settings) -> float | None:
    """Open levels of the hash grid at the states' step; None means all."""
    return _levels(hosts.own_rows(states.step)[0], settings)


def final_levels(settings: Settings) -> float | None:
    """The same after the last step."""
    return _levels(settings.steps, settings)


def _levels(step: int, settings: Settings) -> float | None:
    levels = open_levels(jnp.asarray(step, jnp.int32), settings)
    return None if levels is None else float(levels)
