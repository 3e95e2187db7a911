"""Pictures of several seeds at once: one compiled call a camera, all seeds in it.

Letters: n seeds, v views, h w pixels. Angles at these functions' edge are degrees.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dsd_jax.optimization.presets import Settings
from dsd_jax.rendering.cameras import Camera, orbit
from dsd_jax.rendering.occupancy import OccupancyGrid
from dsd_jax.rendering.scene import Scene

# (params [n, ...], grids [n, ...], open_levels, camera) -> rgb [n, h, w, 3]
Camerawork = Callable[[Any, OccupancyGrid, Any, Camera], jax.Array]

_CHUNK_POINTS = 2**20


def camera_at(azimuth_deg: float, elevation_deg: float, settings: Settings) -> Camera:
    """The camera of the run's framing at one viewpoint."""
    return orbit(
        np.deg2rad(azimuth_deg),
        np.deg2rad(elevation_deg),
        settings.distance,
        np.deg2rad(settings.fov_deg),
    )


def make_camerawork(scene: Scene, size: int, samples: int) -> Camerawork:
    """A jitted renderer of n seeds from one camera on plain grey: size x size, no randomness.

    Seeds run one after the other and rows in chunks, so that memory stays small; the camera is
    traced: one compilation serves all frames.
    """
    rows = max(1, min(size, _CHUNK_POINTS // (size * samples)))
    chunk = next(i for i in range(rows, 0, -1) if size % i == 0)

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
            chunk=chunk,
        )
        return jnp.clip(rendering.rgb, 0.0, 1.0)

    @jax.jit
    def camerawork(params, grids, levels, camera):
        return jax.lax.map(lambda pair: one(*pair, levels, camera), (params, grids))

    return camerawork


def pictures(
    camerawork: Camerawork,
    params: Any,
    grids: OccupancyGrid,
    levels: Any,
    azimuths_deg,
    elevation_deg: float,
    settings: Settings,
    on_view: Callable[[int], None] = lambda i: None,
) -> Float[np.ndarray, "n v h w 3"]:
    """All n seeds from each azimuth; `on_view` hears the index of each view done."""
    views = []
    for i, azimuth in enumerate(azimuths_deg):
        camera = camera_at(azimuth, elevation_deg, settings)
        views.append(np.asarray(camerawork(params, grids, levels, camera)))
        on_view(i)
    return np.stack(views, axis=1)
