"""Images <-> latents, for all priors that denoise latents of an autoencoder.

Letters: h w c a latent, H W k an image, of 3 channels, or 4 with opacity.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsd_jax.models.vae import AutoencoderKL


def encode_unscaled(
    vae: AutoencoderKL, params, image: Float[Array, "H W k"], size: int
) -> Float[Array, "h w c"]:
    """The posterior's mean for an image in [0, 1] of any size, float32; differentiable.

    The image is resized bilinearly to a square of `size` pixels.
    """
    image = jax.image.resize(image, (size, size, image.shape[-1]), "bilinear")
    mean, _ = vae.apply({"params": params}, image[None] * 2 - 1, method="encode")
    return mean[0].astype(jnp.float32)


def encode(
    vae: AutoencoderKL, params, image: Float[Array, "H W k"], size: int
) -> Float[Array, "h w c"]:
    """What the UNet denoises: `encode_unscaled` times the scaling factor."""
    return encode_unscaled(vae, params, image, size) * vae.config.scaling_factor


def decode(vae: AutoencoderKL, params, x: Float[Array, "h w c"]) -> Float[Array, "H W k"]:
    """Image of a latent, clipped to [0, 1], float32."""
    image = vae.apply({"params": params}, x[None] / vae.config.scaling_factor, method="decode")[0]
    return jnp.clip(image.astype(jnp.float32) / 2 + 0.5, 0, 1)


def sees_opacity(vae: AutoencoderKL) -> bool:
    """Whether images have opacity as a fourth channel."""
    return vae.config.in_channels == 4
