"""How a prior is trained: every number of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class TrainingSettings:
    """The packaged priors' numbers, but for what `experiments/train_prior.py` says of them."""

    out: Path = Path("checkpoints/toybox")
    """Folder of checkpoints, sample sheets and the exported prior."""
    continue_from: Path | None = None
    """Start from the weights of an exported folder instead of random ones."""
    groups: int = 12
    """Groups of four views rendered of each object."""
    palettes: int = 4
    """Colourings of each object."""
    deformed: int = 0
    """Of novel views: copies of each object, stretched, tapered or mirrored, that are trained on
    beside it."""
    vae: Path | None = None
    """Pipeline whose autoencoder to start from; that of novel views keeps it (Toybox's)."""
    vae_minutes: float = 4.0
    """Training time of the autoencoder, without compiling; 0 keeps its weights."""
    unet_minutes: float = 14.0
    """Training time of denoiser and text or vision encoder, without compiling."""
    vae_batch: int = 96
    """Pictures a step and device."""
    unet_batch: int = 96
    """Groups of four views a step and device, and as many times four single views come with them;
    of novel views, pairs a step and device."""
    vae_rate: float = 2e-3
    """Peak learning rate of the autoencoder."""
    unet_rate: float = 1e-3
    """Peak learning rate of denoiser and text or vision encoder."""
    noisy_weight: float = 1.0
    """Of novel views: errors of the noise count 1 / alpha_t^2 times, as those of v do (arXiv
    2202.00512), but at most so many times; 1: all alike, so that high t, where it is decided what
    a picture shows, hardly counts."""
    vae_sharpness: float = 0.5
    """Share of the adversary in the autoencoder's gradient, see `adversary.sharpen`."""
    resolution: int = 128
    """Side of the pictures."""
    latent_channels: int = 8
    """Of the autoencoder; latents are an eighth of the pictures' side."""
    opacity: bool = True
    """Pictures have opacity as a fourth channel, which the prior then sees."""
    small: bool = False
    """Miniature networks, for a trial on a CPU."""
    seed: int = 0
    """Of everything random."""

    def denoiser_stage(self, deadline: float, log) -> dict[str, Any]:
        """What `stage.train` is told of the denoiser and its encoder."""
        return {
            "folder": self.out, "minutes": self.unet_minutes, "peak_rate": self.unet_rate,
            "deadline": deadline, "log": log,
        }  # fmt: skip


def compute_dtype():
    """What the networks compute in while they are trained."""
    return jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32
