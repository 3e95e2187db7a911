"""What conditions Zero-1-to-3 (arXiv 2303.11328) on an image and on a move of the camera.

Its UNet takes the noisy latent and the image's latent, concatenated on channels, and as text the
image's CLIP embedding, told of the move by `project`. Both are zeros for the unconditional
prediction. The weights are read by `models.ldm`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def pose_vector(delta_polar, delta_azimuth, delta_radius) -> Float[Array, "*n 4"]:
    """(polar, sin azimuth, cos azimuth, radius) of target camera minus image's camera.

    Angles in radians, all of one shape [*n]; the polar angle is measured from the pole.
    """
    polar, azimuth, radius = map(jnp.asarray, (delta_polar, delta_azimuth, delta_radius))
    return jnp.stack([polar, jnp.sin(azimuth), jnp.cos(azimuth), radius], -1)


def project(
    cc_projection: dict, image_embedding: Float[Array, "*n l d"], pose: Float[Array, "*n 4"]
) -> Float[Array, "*n l d"]:
    """The UNet's text input: a linear layer of image embedding and pose.

    `cc_projection` is what `models.ldm.load_cc_projection` returns.
    """
    pose = jnp.broadcast_to(pose[..., None, :], (*image_embedding.shape[:-1], pose.shape[-1]))
    joined = jnp.concatenate([image_embedding, pose], -1)
    return joined @ cc_projection["kernel"] + cc_projection["bias"]
