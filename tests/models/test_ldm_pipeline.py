"""ldm_pipeline.py: tiny_sd renamed by tables written by hand, and what is refused."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from dsd_jax.models.ldm_names import vae_key
from dsd_jax.models.ldm_pipeline import load_single_file
from dsd_jax.models.weights import load_pipeline
from dsd_jax.priors import load_prior
from dsd_jax.priors.stable_diffusion import load

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT = "cond_stage_model.transformer.text_model."


pytestmark = pytest.mark.usefixtures("traced_once", "quick_compilation")


@pytest.fixture
def tensors(ldm_checkpoint):
    return dict(ldm_checkpoint)


@pytest.fixture(scope="module")
def pipeline(tiny_sd):
    return load_pipeline(tiny_sd)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_renamed_model_is_read_exactly(tensors, pipeline, write_checkpoint):
    renamed = load_single_file(write_checkpoint(tensors))
    assert renamed.networks == pipeline.networks
    assert renamed.scheduler == pipeline.scheduler
    assert_equal(renamed.params, pipeline.params)


def test_types_are_those_asked_for(tiny_sd, tensors, write_checkpoint):
    file = write_checkpoint(tensors)
    mixed = load_single_file(file, jnp.bfloat16, jnp.float16)
    assert mixed.networks == load_pipeline(tiny_sd, jnp.bfloat16).networks
    assert {leaf.dtype for leaf in jax.tree.leaves(mixed.params)} == {jnp.dtype(jnp.float16)}
    half = load_single_file(file, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype(jnp.bfloat16)}


# ---- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                f"{VAE}decoder.up.3.upsample.conv.bias": None,
                f"{VAE}encoder.mid.attn_1.q.weight": None,
            },
            "decoder.up.3.upsample.conv.bias [32] is missing",
        ),
        (
            {f"{VAE}encoder.mid.attn_1.proj_out.weight": (32, 32)},
            "encoder.mid.attn_1.proj_out.weight has shape [32, 32], the configuration asks for "
            "[32, 32, 1, 1]",
        ),
        ({f"{VAE}loss.logvar": ()}, "first_stage_model.loss.logvar [] has no place"),
        ({f"{UNET}out.2.bias": None}, "model.diffusion_model.out.2.bias [4] is missing"),
        ({f"{TEXT}final_layer_norm.bias": None}, f"{TEXT}final_layer_norm.bias [32] is missing"),
        ({f"{TEXT}pooler.bias": (32,)}, f"{TEXT}pooler.bias [32] has no place"),
        ({"cond_stage_model.model.ln_final.bias": (32,)}, "ln_final.bias [32] has no place"),
        ({"betas.weight": (2,)}, "betas.weight [2] has no place"),
        ({"cc_projection.bias": (32,)}, "cc_projection.bias [32] has no place"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(
    tensors, write_checkpoint, changed, changes, message
):
    file = write_checkpoint(changed(tensors, changes))
    with pytest.raises(ValueError, match="tensor") as error:
        load_single_file(file)
    assert str(error.value).startswith(f"{file}: tensor")
    assert message in str(error.value) and "\n" not in str(error.value)


def with_entry(part, name, value):
    return lambda config: config | {part: config[part] | {name: value}}


def without(part, name):
    return lambda config: config | {part: {k: v for k, v in config[part].items() if k != name}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (list, "has to hold named entries, got"),
        (
            lambda c: {k: c[k] for k in ("unet", "vae")},
            "needs the entries unet, vae, text_encoder, scheduler, and no others",
        ),
        (
            lambda config: config | {"tokenizer": {}},
            "needs the entries unet, vae, text_encoder, scheduler",
        ),
        (lambda config: config | {"vae": 3}, "vae needs named entries, got 3"),
        (with_entry("unet", "ip_dim", 16), "unet config: entry ip_dim is not supported"),
        (
            with_entry("unet", "context_dim", 64),
            "takes text of width 64, the text encoder gives 32",
        ),
        (with_entry("vae", "tanh_out", True), "vae config: entry tanh_out is not supported"),
        (without("vae", "scale_factor"), "vae config: entry scale_factor is missing"),
        (
            with_entry("vae", "scale_factor", 0),
            "vae config: scale_factor needs a number from 1e-06 to 1e[+]06, got 0",
        ),
        (
            with_entry("vae", "attn_resolutions", [16]),
            r"attn_resolutions = \[16\] is not supported",
        ),
        (
            with_entry("vae", "ch_mult", 4),
            "vae config: ch_mult needs a list of 1 to 8 entr",
        ),
        (
            with_entry("vae", "ch_mult", [1, "2"]),
            "vae config: ch_mult needs a positive integer, got '2'",
        ),
        (with_entry("vae", "ch", 0), "vae config: ch needs a positive integer, got 0"),
        (
            with_entry("text_encoder", "kind", "t5"),
            "kind = 't5' is not supported, only clip and openclip",
        ),
        (
            with_entry("text_encoder", "layer", "last"),
            "text_encoder config: entry layer is not supported",
        ),
        (without("text_encoder", "heads"), "text_encoder config: entry heads is missing"),
        (
            with_entry("text_encoder", "heads", 3),
            "hidden_size 32 must be a multiple of 3 attention heads",
        ),
        (without("scheduler", "beta_start"), "scheduler config: entry beta_start is missing"),
    ],
)
def test_the_json_file_is_checked(write_checkpoint, ldm_config, change, message):
    file = write_checkpoint({"betas": np.zeros(1)}, change(ldm_config))
    with pytest.raises(ValueError, match=message) as error:
        load_single_file(file)
    assert str(error.value).startswith(f"{file.with_suffix('.json')}")
    assert "\n" not in str(error.value)


def test_files_that_are_missing_or_no_json_are_named(tmp_path):
    file = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        load_single_file(file)
    save_file({"betas": np.zeros(1)}, file)
    with pytest.raises(FileNotFoundError, match=r"model\.json is missing: it has to describe"):
        load_single_file(file)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ValueError, match=r"model\.json is not JSON"):
        load_single_file(file)


# ---- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        # Places of Stable Diffusion's own vae that tiny_sd has not.
        ("encoder.down_blocks.2.resnets.0.conv_shortcut.weight",
         "encoder.down.2.block.0.nin_shortcut.weight"),
        ("decoder.up_blocks.3.resnets.0.conv_shortcut.bias",
         "decoder.up.0.block.0.nin_shortcut.bias"),
        ("decoder.up_blocks.1.resnets.2.norm1.weight", "decoder.up.2.block.2.norm1.weight"),
    ],
)  # fmt: skip
def test_names_in_the_vae(ours, theirs):
    assert vae_key(ours, 4) == theirs


# ---- as a prior -----------------------------------------------------------------------------


def test_the_file_is_a_prior(tiny_sd, tensors, write_checkpoint, tmp_path):
    file = write_checkpoint(tensors)
    with pytest.raises(FileNotFoundError, match="prompts need a tokenizer") as error:
        load_prior(file)
    assert "\n" not in str(error.value)
    shutil.copytree(tiny_sd / "tokenizer", tmp_path / "tokenizer")
    prior, folder = load_prior(str(file)), load(tiny_sd)
    assert prior.latent_shape == (64, 64, 4) and prior.folder == tmp_path
    assert_equal(prior.schedule.alphas_cumprod, folder.schedule.alphas_cumprod)
    found = prior.encode_prompt(prior.params, ["the dog", ""])
    np.testing.assert_array_equal(found, folder.encode_prompt(folder.params, ["the dog", ""]))
    assert found.shape == (2, 77, 32) and np.abs(found[0] - found[1]).max() > 0.1


def test_a_prior_s_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors is missing"):
        load_prior(tmp_path / "none.safetensors")
