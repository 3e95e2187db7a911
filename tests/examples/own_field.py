"""A field of one's own: density and colour at the corners of a voxel grid, trilinear in between."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Voxels:
    """A soft grey ball at first."""

    resolution: int = 8

    def init(self, key):
        line = jnp.linspace(-1, 1, self.resolution)
        x, y, z = jnp.meshgrid(line, line, line, indexing="ij")
        density = 4.0 * (1 - jnp.sqrt(x**2 + y**2 + z**2) / 0.5)
        colour = 0.1 * jax.random.normal(key, (*density.shape, 3))
        return jnp.concatenate([density[..., None], colour], -1)

    def apply(self, params, points):
        place = (points.T + 1) / 2 * (self.resolution - 1)
        read = lambda grid: jax.scipy.ndimage.map_coordinates(grid, place, order=1, mode="nearest")  # noqa: E731
        values = jnp.stack([read(params[..., i]) for i in range(4)], -1)
        inside = jnp.sum(points**2, -1) <= 1
        return jnp.where(inside, jax.nn.softplus(values[:, 0]), 0), jax.nn.sigmoid(values[:, 1:])
