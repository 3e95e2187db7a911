"""flax_pipeline.py: names, and refusals; tests/parity has it on a real Flax pipeline."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from dsd_jax.models.flax_pipeline import convert, our_path
from dsd_jax.models.weights import load_pipeline

ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out_0": "proj_attn"}


@pytest.fixture(scope="module")
def ours(tiny_sd):
    return load_pipeline(tiny_sd)


@pytest.fixture(scope="module")
def theirs(ours):
    """What diffusers' Flax pipeline of the same folder looks like: (pipeline, params)."""

    def renamed(tree, rename):
        flat = traverse_util.flatten_dict(tree)
        return traverse_util.unflatten_dict({rename(path): leaf for path, leaf in flat.items()})

    def vae(path):
        return tuple(ATTENTION.get(name, name) for name in path)

    def text_encoder(path):
        head, *rest = path
        if head == "encoder":
            rest = ["layers", rest[0].removeprefix("layers_"), *rest[1:]]
        return ("text_model", head, *rest)

    params = {
        "unet": ours.params["unet"],
        "vae": renamed(ours.params["vae"], vae),
        "text_encoder": renamed(ours.params["text_encoder"], text_encoder),
        "scheduler": None,
    }
    parts = {
        part: SimpleNamespace(config=getattr(ours.networks, part).config.to_dict())
        for part in ("unet", "vae", "text_encoder")
    }
    parts["unet"].dtype = jnp.bfloat16
    return SimpleNamespace(**parts, scheduler=SimpleNamespace(config=ours.scheduler)), params


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("text_model/embeddings/token_embedding/embedding", "embeddings/token_embedding/embedding"),
        ("text_model/encoder/layers/11/mlp/fc1/bias", "encoder/layers_11/mlp/fc1/bias"),
        ("text_model/final_layer_norm/scale", "final_layer_norm/scale"),
        (
            "decoder/mid_block/attentions_0/proj_attn/kernel",
            "decoder/mid_block/attentions_0/to_out_0/kernel",
        ),
        ("encoder/mid_block/attentions_0/key/bias", "encoder/mid_block/attentions_0/to_k/bias"),
        ("down_blocks_0/resnets_1/conv1/kernel", "down_blocks_0/resnets_1/conv1/kernel"),
    ],
)
def test_names(theirs, ours):
    assert "/".join(our_path(tuple(theirs.split("/")))) == ours


def test_a_pipeline_is_converted(ours, theirs):
    converted = convert(*theirs)
    jax.tree.map(np.testing.assert_array_equal, converted.params, ours.params)
    assert converted.networks.unet.dtype == jnp.bfloat16
    for ours_too, module in zip(ours.networks, converted.networks, strict=True):
        assert ours_too.config == module.config
    assert converted.scheduler == ours.scheduler


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        (None, r"^unet params: tensor conv_in/bias \[32\] is missing"),
        (np.full(32, np.nan), r"^unet params: conv_in/bias holds NaN or infinite numbers"),
        (np.zeros(4), r"^unet params: tensor conv_in/bias has shape \[4\], .* asks for \[32\]"),
    ],
)
def test_params_that_do_not_fit_are_named(theirs, leaf, said):
    pipeline, params = theirs
    conv_in = {"kernel": params["unet"]["conv_in"]["kernel"], "bias": leaf}
    if leaf is None:
        del conv_in["bias"]
    with pytest.raises(ValueError, match=said):
        convert(pipeline, {**params, "unet": {**params["unet"], "conv_in": conv_in}})
