"""What images tell a prior of views: one of an object, or several of one object.

Letters: m images, l d length (1) and width of the context, h w c a latent. Angles in radians.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from dsd_jax.priors.base import angle_from_front


@struct.dataclass
class ImageConditioning:
    """What an image tells the prior.

    Attributes:
        embedding: [l, d] of CLIP's vision encoder, before the projection.
        latent: [h, w, c], not scaled.
        elevation: [] radians, of the camera that took it.
        azimuth: None, and of several images, all of whose leaves have a leading axis m, that of
            each.
    """

    embedding: Float[Array, "*m l d"]
    latent: Float[Array, "*m h w c"]
    elevation: Any = 0.0
    azimuth: Any = None

    def nearest(self, azimuth: Float[Array, ""]) -> "ImageConditioning":
        """Of several images the one from next to this azimuth."""
        apart = angle_from_front(azimuth - self.azimuth)
        return jax.tree.map(lambda leaf: leaf[jnp.argmin(apart)], self)


def stacked(each: Sequence[ImageConditioning], azimuths: Sequence[Any]) -> ImageConditioning:
    """Several images of one object as one, from their azimuths."""
    found = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    return dataclasses.replace(found, azimuth=jnp.asarray(azimuths, jnp.float32))
