"""Pictures of a field from any camera, as fast as they can be made: what a viewer shows live.

Letters: h w pixels.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsd_jax.export.scenes import load_scene
from dsd_jax.rendering import occupancy
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.chunks import chunk_within
from dsd_jax.rendering.occupancy import OccupancyGrid
from dsd_jax.rendering.scene import Scene

_CHUNK_POINTS = 2**16
FAR = 100.0


class Live(NamedTuple):
    """What is rendered. Objects of equal scenes share what is compiled.

    Attributes:
        params, stage: parameters of the scene, and the stage of its field (None: all of it).
        occupancy: where it has matter.
    """

    scene: Scene
    params: Any
    stage: Any
    occupancy: OccupancyGrid


class Picture(NamedTuple):
    """Of one camera.

    Attributes:
        rgb: in [0, 1], before plain grey.
        depth: along the camera's axis, `FAR` where the object covers less than half of a pixel.
    """

    rgb: Float[Array, "h w 3"]
    depth: Float[Array, "h w"]


def load_live(folder: str | Path, field: Any = None) -> Live:
    """A seed's folder of a run, and its field if that is of your own. Raises as `load_scene`."""
    saved = load_scene(folder, field)
    shown = saved.scene, saved.params, saved.stage
    return Live(*shown, _occupancy(*shown))


@partial(jax.jit, static_argnums=0)
def _occupancy(scene: Scene, params: Any, stage: Any) -> OccupancyGrid:
    """What a run knows at its end; a finer grid takes longer to look up than it saves."""
    field_fn = scene.field_fn(params, stage)
    return occupancy.update(occupancy.init(), field_fn, jax.random.key(0), points_per_cell=8)


def picture(live: Live, camera: Camera, height: int, samples: int) -> Picture:
    """h x 3 h / 2 pixels; compiled once for each height and number of samples a ray."""
    return _picture(live.scene, live[1:], camera, height, samples)


@partial(jax.jit, static_argnums=(0, 3, 4))
def _picture(scene: Scene, rest, camera: Camera, height: int, samples: int) -> Picture:
    params, stage, grid = rest
    width = 3 * height // 2
    seen = scene.render(
        params, camera, stage=stage, plain_background=True, height=height, width=width,
        samples_per_ray=samples, occupancy=grid, skip_empty=True,
        chunk=chunk_within(_CHUNK_POINTS, height, width * samples),
    )  # fmt: skip
    along = -seen.directions @ camera.camera_to_world[:3, 2]
    return Picture(seen.rgb, jnp.where(seen.opacity > 0.5, seen.depth * along, FAR))


def camera_from(
    rotation: Float[np.ndarray, "3 3"],
    position: Float[np.ndarray, "3"],
    fov_y: float,
    aspect: float,
) -> Camera:
    """The camera whose `picture` fills a window.

    Its pixels are not square unless the window is 3:2: the first column of the matrix, to the
    right, is as long as that takes.

    Args:
        rotation: camera to world with columns right, down, forward, as OpenCV has it.
        fov_y: radians.
        aspect: width over height of the window.
    """
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = rotation * np.array([aspect / 1.5, -1, -1])
    matrix[:3, 3] = position
    return Camera(jnp.asarray(matrix), jnp.asarray(fov_y, jnp.float32))
