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
from dsd_jax.recipe import annealing
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.state import State
from dsd_jax.rendering.cameras import camera_at, ring
from dsd_jax.rendering.chunks import chunk_within
from dsd_jax.rendering.scene import Scene

# jitted: (params [n, ...], grids [n, ...], stage, camera) -> pictures [n, h, w, k]
SeedRenderer = Any

# Points at a time: what a CPU's cache holds, and what fills an accelerator.
_CPU_CHUNK, _CHUNK = 2**14, 2**18


@cache
def seed_renderer(
    scene: Scene, size: int, samples: int, mesh: Mesh, opacity: bool = False
) -> SeedRenderer:
    """A jitted renderer of n seeds from one camera on plain grey: size x size, no randomness.

    With `opacity` that is a fourth channel; the colours stay those on grey.

    The same arguments give the same renderer, so that several runs compile it once.

    The devices of the mesh share the seeds. On each of them seeds run one after the other, and rows
    in chunks, so that memory stays small; the camera is traced: one compilation serves all frames.
    """
    points = _CPU_CHUNK if mesh.devices.flat[0].platform == "cpu" else _CHUNK
    rows = chunk_within(points, size, size * samples)

    def one(params, grid, stage, camera):
        rendering = scene.render(
            params,
            camera,
            stage=stage,
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

    def all_seeds(params, grids, stage, camera):
        return jax.lax.map(lambda seed: one(seed[0], seed[1], stage, camera), (params, grids))

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
    renderer: SeedRenderer,
    states: State,
    azimuths_deg,
    elevation_deg: float,
    recipe: Recipe,
    on_view: Callable[[], None] = lambda: None,
) -> UInt8[np.ndarray, "n v h w k"]:
    """All n seeds that this process has, from each azimuth, in the run's framing.

    Args:
        on_view: called after each view.
    """
    stage = stage_of(states, recipe)
    cameras = ring(azimuths_deg, elevation_deg, recipe.camera.distance, recipe.camera.fov_deg)

    def fetched(drawn: Any) -> np.ndarray:
        picture = hosts.own_rows(drawn)
        on_view()
        return picture

    views: list[Any] = []  # pictures, the last one still on the devices
    for i in range(len(azimuths_deg)):
        camera = camera_at(cameras, i)
        views.append(renderer(states.params, states.occupancy, stage, camera))
        if len(views) > 1:  # the devices draw a view while the one before is fetched
            views[-2] = fetched(views[-2])
    views[-1] = fetched(views[-1])
    return np.stack(views, axis=1)


def compile_renderer(renderer: SeedRenderer, states: State, recipe: Recipe) -> None:
    """Compile what `shoot` will call; of the states only shapes and shardings matter."""
    camera = camera_at(ring([0.0], 0.0, recipe.camera.distance, recipe.camera.fov_deg), 0)
    stage = final_stage(recipe)
    renderer.lower(states.params, states.occupancy, stage, camera).compile()


def stage_of(states: State, recipe: Recipe) -> Any:
    """What of the field is in use at the states' step, as results show it; see `Field.stage`."""
    return _stage(hosts.own_rows(states.step)[0], recipe)


def final_stage(recipe: Recipe) -> Any:
    """The same after the last step."""
    return _stage(recipe.total_steps, recipe)


def _stage(step: int, recipe: Recipe) -> Any:
    p = annealing.progress(jnp.asarray(step, jnp.int32), recipe)
    return jax.tree.map(float, recipe.scene.field.stage(p, final=True))
