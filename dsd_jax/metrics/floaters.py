"""How much of an object's matter floats beside it.

Letters: g cells along an axis of the box [-1, 1]^3.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

GRID = 64
SOLID = 0.1


def opacity_grid(field_fn: Callable, cells: int = GRID) -> Float[Array, "g g g"]:
    """Share of a straight ray that each cell absorbs, from the density at its centre; jittable.

    `field_fn` maps points [n, 3] to (density [n], anything).
    """
    centres = 2 * (jnp.arange(cells) + 0.5) / cells - 1
    points = jnp.stack(jnp.meshgrid(centres, centres, centres, indexing="ij"), -1)
    slices = points.reshape(cells, -1, 3)
    density = jax.lax.map(lambda slice_points: field_fn(slice_points)[0], slices)
    return -jnp.expm1(-density.reshape(cells, cells, cells) * 2 / cells)


def floating_share(opacity: Float[np.ndarray, "g g g"], solid: float = SOLID) -> float:
    """Share of the opacity that lies outside the largest connected component, in [0, 1].

    Components are those of the cells that absorb at least `solid`, over all 26 neighbours. Thinner
    haze that touches the largest is its soft rim; all other haze floats. 1.0 where nothing is
    solid.
    """
    from scipy.ndimage import maximum_filter
    from skimage.measure import label

    opacity = np.asarray(opacity, np.float64)
    components = np.asarray(label(opacity >= solid, connectivity=3))
    sums = np.bincount(components.ravel(), opacity.ravel())
    if len(sums) == 1:
        return 1.0
    piece = components == 1 + np.argmax(sums[1:])
    rim = maximum_filter(piece, 3, mode="constant") & (components == 0)
    return max(0.0, float(1 - opacity[piece | rim].sum() / sums.sum()))
