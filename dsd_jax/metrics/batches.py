"""Features of many images on the host, a batch at a time."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, Num


def in_batches(
    function: Callable[[np.ndarray], jax.Array],
    images: Num[np.ndarray, "*batch h w 3"],
    batch: int = 64,
) -> Float[np.ndarray, "*batch d"]:
    """`function`, [n, h, w, 3] -> [n, d], of images of any leading axes.

    It is called with `batch` images each time, so that one program serves all: the last batch is
    filled up.
    """
    images = np.asarray(images)
    flat = images.reshape(-1, *images.shape[-3:])
    batch = min(batch, len(flat))
    parts = [np.asarray(function(_filled(flat[i : i + batch], batch)))
             for i in range(0, len(flat), batch)]  # fmt: skip
    return np.concatenate(parts)[: len(flat)].reshape(*images.shape[:-3], -1)


def _filled(images: np.ndarray, n: int) -> np.ndarray:
    if len(images) == n:
        return images
    return np.pad(images, ((0, n - len(images)), (0, 0), (0, 0), (0, 0)), mode="edge")
