"""EfficientNet-Lite0 against a plain PyTorch evaluation of the same weights."""

import jax
import numpy as np
import pytest

from dsd_jax.metrics import efficientnet
from dsd_jax.metrics.torch_file import read_state_dict

torch = pytest.importorskip("torch")
F = pytest.importorskip("torch.nn.functional")


@pytest.fixture(scope="module")
def state():
    return torch.load(efficientnet.weights_path(), map_location="cpu", weights_only=True)


def same_conv(x, weight, stride=1, groups=1):
    """Padding so that the output has ceil(input / stride) pixels, the odd one below and right."""
    pads = []
    for size, kernel in zip(reversed(x.shape[2:]), reversed(weight.shape[2:]), strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def torch_features(state, images):
    """Unfolded batch norms, NCHW; the layers are found by their names in the state dict."""

    def conv_norm(x, conv, norm, **kwargs):
        y = same_conv(x, state[f"{conv}.weight"], **kwargs)
        parts = [state[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(y, *parts, eps=1e-3)

    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) * 255 - 127) / 128
    x = F.relu6(conv_norm(x, "_conv_stem", "_bn0", stride=2))
    for i, stride in enumerate(strides):
        name, y = f"_blocks.{i}", x
        if i > 0:
            y = F.relu6(conv_norm(y, f"{name}._expand_conv", f"{name}._bn0"))
        depthwise = {"stride": stride, "groups": y.shape[1]}
        y = F.relu6(conv_norm(y, f"{name}._depthwise_conv", f"{name}._bn1", **depthwise))
        y = conv_norm(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if x.shape == y.shape else y
    return F.relu6(conv_norm(x, "_conv_head", "_bn1")).mean((2, 3)).numpy()


@pytest.mark.parametrize("size", [(128, 128), (75, 50)])
def test_features_match_torch(state, size):
    images = np.random.default_rng(0).random((2, *size, 3), np.float32)
    params = efficientnet.load_efficientnet()
    ours = jax.jit(efficientnet.features)(params, images)
    np.testing.assert_allclose(ours, torch_features(state, images), atol=2e-4, rtol=2e-4)


def test_reader_matches_torch_bit_for_bit(state):
    ours = read_state_dict(efficientnet.weights_path())
    assert list(ours) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(ours[name], tensor.numpy())
        assert ours[name].dtype == tensor.numpy().dtype
