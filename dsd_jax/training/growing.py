"""A trained network's weights as the start of one with more channels at its ends."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

# Layers that may have more channels than before, and of how many equal parts their inputs and
# outputs are made (means and logarithms of variances; a noisy latent and a known one).
VAE = {
    "encoder/conv_in": (1, 1), "encoder/conv_out": (1, 2), "quant_conv": (2, 2),
    "post_quant_conv": (1, 1), "decoder/conv_in": (1, 1), "decoder/conv_out": (1, 1),
}  # fmt: skip
UNET = {"conv_in": (1, 1), "conv_out": (1, 1)}
UNET_OF_PAIRS = {"conv_in": (2, 1), "conv_out": (1, 1)}


def all_grown(
    folder: Path, stored: Mapping, fresh: Mapping, layers: Mapping[str, Mapping]
) -> dict[str, dict]:
    """`grown` of each network of `fresh`, by the names of its `layers`.

    Raises ValueError that names `folder`, where the networks come from.
    """
    made = {}
    for name in fresh:
        try:
            made[name] = grown(stored[name], fresh[name], layers.get(name, {}))
        except ValueError as error:
            weight = f"{name}/{error}"
            raise ValueError(f"{folder}: {weight} has another shape than this recipe's") from error
    return made


def grown(stored: Mapping, fresh: Mapping, layers: Mapping[str, tuple[int, int]]) -> dict:
    """`fresh` with the weights of `stored`, in the first channels of each part of `layers`.

    What was there computes as before: new inputs count for nothing yet, new outputs are as in
    `fresh`. Raises ValueError where the shapes of other layers differ, or layers would shrink.
    """

    def leaf(path, new):
        names = [key.key for key in path]
        old = _at(stored, names)
        if old is not None and np.shape(old) == np.shape(new):
            return np.asarray(old)
        parts = layers.get("/".join(names[:-1]))
        if old is None or parts is None or not _fits(np.shape(old), np.shape(new), parts):
            raise ValueError("/".join(names))
        return _placed(np.asarray(old), np.array(new), parts)

    return jax.tree_util.tree_map_with_path(leaf, fresh)


def _at(tree: Any, names: list[str]):
    for name in names:
        if not isinstance(tree, Mapping) or name not in tree:
            return None
        tree = tree[name]
    return tree


def _placed(old: np.ndarray, new: np.ndarray, parts: tuple[int, int]) -> np.ndarray:
    """A bias [out] or a kernel [..., in, out] of `old` within that of `new`."""
    outputs = _channels(old.shape[-1], new.shape[-1], parts[1])
    if old.ndim == 1:
        new[outputs] = old
        return new
    inputs = _channels(old.shape[-2], new.shape[-2], parts[0])
    new[..., outputs] = 0
    new[..., inputs[:, None], outputs] = old
    return new


def _fits(old: tuple[int, ...], new: tuple[int, ...], parts: tuple[int, int]) -> bool:
    """Whether a kernel or bias of one shape has room in another."""
    if len(old) != len(new) or old[:-2] != new[:-2]:
        return False
    ends = zip(old[-2:], new[-2:], parts[-len(old[-2:]) :], strict=True)
    return all(a <= b and a % n == 0 and b % n == 0 for a, b, n in ends)


def _channels(old: int, new: int, parts: int) -> np.ndarray:
    """Where `old` channels lie in `new` ones: at the start of each of the parts."""
    starts = np.arange(parts)[:, None] * (new // parts)
    return (starts + np.arange(old // parts)).ravel()
