"""ldm_pipeline.py: text encoders of OpenCLIP, random, in tiny_sd's checkpoint."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models.clip_text import ClipText
from dsd_jax.models.config import ClipTextConfig
from dsd_jax.models.ldm_names import encoder_key
from dsd_jax.models.ldm_pipeline import load_single_file

PREFIX = "cond_stage_model.model."
BLOCKS = f"{PREFIX}transformer.resblocks"
TEXT_ENCODER = {
    "kind": "openclip",
    "vocab_size": 40,
    "width": 32,
    "layers": 3,
    "heads": 2,
    "context_length": 8,
}


pytestmark = pytest.mark.usefixtures("traced_once", "quick_compilation")


def openclip(width=32, layers=3, words=40, length=8):
    """A random text encoder in OpenCLIP's layout, biases included."""
    shapes = {
        "token_embedding.weight": (words, width),
        "positional_embedding": (length, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
        "text_projection": (width, 16),
        "logit_scale": (),
    }
    for block in (f"transformer.resblocks.{i}." for i in range(layers)):
        shapes |= {
            f"{block}ln_1.weight": (width,),
            f"{block}ln_1.bias": (width,),
            f"{block}attn.in_proj_weight": (3 * width, width),
            f"{block}attn.in_proj_bias": (3 * width,),
            f"{block}attn.out_proj.weight": (width, width),
            f"{block}attn.out_proj.bias": (width,),
            f"{block}ln_2.weight": (width,),
            f"{block}ln_2.bias": (width,),
            f"{block}mlp.c_fc.weight": (4 * width, width),
            f"{block}mlp.c_fc.bias": (4 * width,),
            f"{block}mlp.c_proj.weight": (width, 4 * width),
            f"{block}mlp.c_proj.bias": (width,),
        }
    rng = np.random.default_rng(0)
    return {k: np.asarray(0.3 * rng.normal(size=s), np.float32) for k, s in shapes.items()}


def all_layers(stored):
    """The parameters of ClipText, of all of OpenCLIP's layers."""

    def layer(name):
        return {"kernel": stored[f"{name}.weight"].T, "bias": stored[f"{name}.bias"]}

    def norm(name):
        return {"scale": stored[f"{name}.weight"], "bias": stored[f"{name}.bias"]}

    encoder = {}
    for i in range(3):
        block = f"transformer.resblocks.{i}"
        weights = np.split(stored[f"{block}.attn.in_proj_weight"], 3)
        biases = np.split(stored[f"{block}.attn.in_proj_bias"], 3)
        attention = {
            f"{name}_proj": {"kernel": weight.T, "bias": bias}
            for name, weight, bias in zip("qkv", weights, biases, strict=True)
        }
        encoder[f"layers_{i}"] = {
            "layer_norm1": norm(f"{block}.ln_1"),
            "self_attn": attention | {"out_proj": layer(f"{block}.attn.out_proj")},
            "layer_norm2": norm(f"{block}.ln_2"),
            "mlp": {"fc1": layer(f"{block}.mlp.c_fc"), "fc2": layer(f"{block}.mlp.c_proj")},
        }
    embeddings = {
        "token_embedding": {"embedding": stored["token_embedding.weight"]},
        "position_embedding": {"embedding": stored["positional_embedding"]},
    }
    return {"embeddings": embeddings, "encoder": encoder, "final_layer_norm": norm("ln_final")}


@pytest.fixture
def tensors(ldm_checkpoint):
    """The checkpoint with OpenCLIP's text encoder instead of CLIP's."""
    others = {k: v for k, v in ldm_checkpoint.items() if not k.startswith("cond_stage_model.")}
    return others | {PREFIX + key: tensor for key, tensor in openclip().items()}


@pytest.fixture
def config(ldm_config):
    return ldm_config | {"text_encoder": TEXT_ENCODER}


def test_openclip_gives_its_penultimate_hidden_states(tensors, config, write_checkpoint):
    pipeline = load_single_file(write_checkpoint(tensors, config))
    shape = ClipTextConfig(40, 32, 128, 3, 2, max_position_embeddings=8, hidden_act="gelu")
    ids = jnp.array([[38, 5, 17, 3, 39, 0, 0, 0]])
    params = {"params": all_layers(openclip())}
    expected = jax.jit(functools.partial(ClipText(shape).apply, penultimate=True))(params, ids)
    params = {"params": pipeline.params["text_encoder"]}
    found = jax.jit(pipeline.networks.text_encoder.apply)(params, ids)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{PREFIX}ln_final.eps": (1,)}, f"{PREFIX}ln_final.eps [1] has no place"),
        ({f"{BLOCKS}.3.ln_1.bias": (32,)}, f"{BLOCKS}.3.ln_1.bias [32] has no place"),
        (
            {f"{BLOCKS}.1.attn.in_proj_weight": (32, 96)},
            f"{BLOCKS}.1.attn.in_proj_weight has shape [32, 96], the configuration asks for "
            "[96, 32]",
        ),
        ({f"{BLOCKS}.0.attn.in_proj_bias": None}, f"{BLOCKS}.0.attn.in_proj_bias [96] is missing"),
        (
            {f"{PREFIX}{key}": None for key in openclip() if "resblocks.2." in key},
            f"tensors {BLOCKS}.2.* are missing; are there as many layers?",
        ),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(
    tensors, config, write_checkpoint, changed, changes, message
):
    file = write_checkpoint(changed(tensors, changes), config)
    with pytest.raises(ValueError, match="tensor") as error:
        load_single_file(file)
    assert str(error.value).startswith(f"{file}: tensor")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_names_in_openclip():
    block, theirs = "encoder.layers.22.", "transformer.resblocks.22."
    assert encoder_key(f"{block}mlp.fc2.weight", "openclip") == f"{theirs}mlp.c_proj.weight"
    assert encoder_key(f"{block}self_attn.in_proj.bias", "openclip") == f"{theirs}attn.in_proj_bias"
    assert encoder_key("embeddings.position_embedding.weight", "openclip") == "positional_embedding"
