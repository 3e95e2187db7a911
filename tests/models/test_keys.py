"""keys.py: names and layouts."""

import numpy as np
import pytest

from dsd_jax.models import keys


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (("conv_in", "kernel"), "conv_in.weight"),
        (("mid_block", "resnets_0", "norm1", "scale"), "mid_block.resnets.0.norm1.weight"),
        (("a_12", "attn1", "to_out_0", "bias"), "a.12.attn1.to_out.0.bias"),
        (("ff", "net_0", "proj", "kernel"), "ff.net.0.proj.weight"),
        (("time_embedding", "linear_2", "kernel"), "time_embedding.linear_2.weight"),
        (("embeddings", "token_embedding", "embedding"), "embeddings.token_embedding.weight"),
        (
            ("vision_model", "embeddings", "class_embedding"),
            "vision_model.embeddings.class_embedding",
        ),
        (
            ("vision_model", "encoder", "layers_3", "layer_norm1", "scale"),
            "vision_model.encoder.layers.3.layer_norm1.weight",
        ),
        (("visual_projection", "kernel"), "visual_projection.weight"),
    ],
)
def test_torch_key(path, key):
    assert keys.torch_key(path) == key


@pytest.mark.parametrize(
    ("leaf", "shape", "torch_shape"),
    [
        ("kernel", (3, 5, 2, 7), (7, 2, 3, 5)),
        ("kernel", (2, 7), (7, 2)),
        ("embedding", (2, 7), (2, 7)),
        ("scale", (7,), (7,)),
    ],
)
def test_layouts(leaf, shape, torch_shape):
    path, array = ("x", leaf), np.random.default_rng(0).normal(size=shape)
    assert keys.torch_shape(path, shape) == keys.to_torch(path, array).shape == torch_shape
    np.testing.assert_array_equal(keys.from_torch(path, keys.to_torch(path, array)), array)


def test_a_transposed_kernel_is_the_same_map():
    kernel, x = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0])
    np.testing.assert_array_equal(keys.to_torch(("kernel",), kernel) @ x, x @ kernel)


def test_old_names():
    head = "encoder.mid_block.attentions.0"
    assert keys.modern(f"{head}.query.weight") == f"{head}.to_q.weight"
    assert keys.modern(f"{head}.proj_attn.bias") == f"{head}.to_out.0.bias"
    for key in (f"{head}.group_norm.bias", "conv_in.weight", f"{head}.to_out.0.bias"):
        assert keys.modern(key) == key
