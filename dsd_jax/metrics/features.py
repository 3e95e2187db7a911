"""What a metric may look at: functions from images to features, one for each network.

Letters: images [..., h, w, 3] with any leading axes (objects and views), floats in [0, 1] or uint8,
d features. A score names the function that it was computed with.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Num

from dsd_jax.metrics import clip, efficientnet

Features = Callable[[Num[np.ndarray, "*batch h w 3"]], Float[np.ndarray, "*batch d"]]


def efficientnet_lite0() -> Features:
    """EfficientNet-Lite0, trained on ImageNet: 1280 features in [0, 6] of images of 128 x 128.

    Raises ModuleNotFoundError without the package of its weights.
    """
    params = efficientnet.load_efficientnet()
    return lambda images: efficientnet.features_in_batches(params, images)


def clip_image(encoders: clip.Clip) -> Features:
    """CLIP's image encoder: its projection, of length 1."""
    return lambda images: clip.image_features(encoders, images)


def pixels(images: Num[np.ndarray, "*batch h w 3"]) -> Float[np.ndarray, "*batch d"]:
    """The colours themselves, in [0, 1], row by row: d = h w 3."""
    images = np.asarray(images)
    values = images / 255.0 if images.dtype == np.uint8 else images
    return values.astype(np.float32).reshape(*images.shape[:-3], -1)
