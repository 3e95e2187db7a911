"""How well two pictures or masks agree. Letters: h w pixels; n and m leading axes."""

import numpy as np
from jaxtyping import Float, Shaped


def psnr(
    ours: Float[np.ndarray, "*n h w 3"], theirs: Float[np.ndarray, "*m h w 3"]
) -> Float[np.ndarray, "*n"]:
    """Peak signal-to-noise ratio in decibels of pictures in [0, 1], at most 100."""
    return -10 * np.log10(np.maximum(np.square(ours - theirs).mean((-3, -2, -1)), 1e-10))


def iou(
    ours: Shaped[np.ndarray, "*n h w"], theirs: Shaped[np.ndarray, "*m h w"]
) -> Float[np.ndarray, "*n"]:
    """Intersection over union of what is solid (true, or above 1/2) in masks; 1 if all is empty."""
    ours, theirs = ours > 0.5, theirs > 0.5
    union = (ours | theirs).sum((-2, -1))
    return np.where(union, (ours & theirs).sum((-2, -1)) / np.maximum(union, 1), 1.0)
