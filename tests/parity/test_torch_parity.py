"""Our networks and folders against PyTorch diffusers and transformers (extra `parity`)."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.guidance import classifier_free
from dsd_jax.models.networks import build, param_shapes
from dsd_jax.models.weights import Pipeline, load_pipeline, save_pipeline

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

TOKENIZER = Path(__file__).parents[1] / "tiny_sd" / "tokenizer"
UNET = {
    "block_out_channels": [32, 64, 64],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3,
    "up_block_types": ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 1,
    "attention_head_dim": [1, 2, 4],
    "cross_attention_dim": 32,
    "norm_num_groups": 16,
    "use_linear_projection": True,
    "sample_size": 16,
}
VAE = {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1, "sample_size": 64}
TEXT = {
    "vocab_size": 519,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "bos_token_id": 517,
    "eos_token_id": 518,
}


def random_params(networks, seed):
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        around = 1.0 if path[-1].key == "scale" else 0.0
        fan_in = max(1, leaf.size // leaf.shape[-1])
        return (around + rng.normal(size=leaf.shape) / fan_in**0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, param_shapes(networks))


def check(found, expected, bound=1e-5):
    expected = np.asarray(expected, np.float64)
    assert np.linalg.norm(np.asarray(found, np.float64) - expected) < bound * np.linalg.norm(
        expected
    )


def nchw(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def nhwc(x):
    return np.moveaxis(x.numpy(), 1, -1)


@pytest.fixture(
    scope="module",
    params=[
        ({}, {"hidden_act": "quick_gelu"}),
        (
            {
                "camera_dim": 16,
                "use_linear_projection": False,
                "transformer_layers_per_block": [1, 2, 1],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "attention_head_dim": 4,
                "layers_per_block": 2,
            },
            {"hidden_act": "gelu"},
        ),
    ],
    ids=["linear", "conv-camera"],
)
def both(request, tmp_path_factory):
    """(our pipeline, PyTorch's) from one folder that our writer made."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    unet, text = request.param
    networks = build({**UNET, **unet}, VAE, {**TEXT, **text})
    folder = tmp_path_factory.mktemp("pipeline")
    params = random_params(networks, seed=0)
    save_pipeline(folder, Pipeline(networks, params), TOKENIZER, np.float32)
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    return load_pipeline(folder), theirs


def apply(ours, part, *args, **kwargs):
    module = getattr(ours.networks, part)
    return jax.jit(lambda p, *a: module.apply({"params": p}, *a, **kwargs))(
        ours.params[part], *args
    )


def test_text_encoder(both):
    ours, theirs = both
    ids = np.random.default_rng(1).integers(0, 519, (2, 77))
    with torch.no_grad():
        expected = theirs.text_encoder(torch.from_numpy(ids))[0]
    check(apply(ours, "text_encoder", jnp.asarray(ids)), expected)


def test_unet(both):
    ours, theirs = both
    rng = np.random.default_rng(2)
    x, text = (rng.normal(size=s).astype(np.float32) for s in [(2, 16, 16, 4), (2, 9, 32)])
    t = np.array([3, 801])
    with torch.no_grad():
        expected = theirs.unet(nchw(x), torch.from_numpy(t), torch.from_numpy(text)).sample
    check(apply(ours, "unet", x, jnp.asarray(t), text), nhwc(expected))


def test_vae(both):
    ours, theirs = both
    rng = np.random.default_rng(3)
    image = rng.uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    z = rng.normal(size=(1, 8, 8, 4)).astype(np.float32)
    with torch.no_grad():
        posterior = theirs.vae.encode(nchw(image)).latent_dist
        decoded = theirs.vae.decode(nchw(z)).sample
    mean, logvar = apply(ours, "vae", image, method="encode")
    check(mean, nhwc(posterior.mean))
    check(logvar, nhwc(posterior.logvar))
    check(apply(ours, "vae", z, method="decode"), nhwc(decoded))


def test_gradient_of_the_encoder(both):
    ours, theirs = both
    image = np.random.default_rng(4).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    theirs_image = nchw(image).requires_grad_()
    theirs.vae.encode(theirs_image).latent_dist.mean.square().sum().backward()

    def loss(params, image):
        mean, _ = ours.networks.vae.apply({"params": params}, image, method="encode")
        return jnp.sum(mean**2)

    grad = jax.jit(jax.grad(loss, argnums=1))(ours.params["vae"], image)
    check(grad, nhwc(theirs_image.grad), 1e-4)


def test_the_camera_is_invisible_to_pytorch(both):
    ours, theirs = both
    has_camera = ours.networks.unet.config.camera_dim is not None
    assert has_camera == ("camera_embedding" in ours.params["unet"])
    assert not any("camera" in name for name, _ in theirs.unet.named_parameters())


def test_prompts_become_the_same_embeddings(both, tmp_path):
    from dsd_jax.priors.stable_diffusion import load

    ours, theirs = both
    save_pipeline(tmp_path, ours, TOKENIZER, np.float32)
    prior = load(tmp_path)
    with torch.no_grad():
        expected, _ = theirs.encode_prompt(["a red house"], "cpu", 1, False)
    check(prior.encode_prompt(prior.params, ["a red house"]), expected)


def test_a_whole_ddim_sample(both):
    """Four guided steps of PyTorch's pipeline and of our ODE give the same latent."""
    from dsd_jax import ode
    from dsd_jax.priors.stable_diffusion import Prior
    from dsd_jax.schedule import NoiseSchedule

    ours, theirs = both
    noise = np.random.default_rng(5).normal(size=(16, 16, 4)).astype(np.float32)
    text, uncond = np.random.default_rng(6).normal(size=(2, 77, 32)).astype(np.float32)
    expected = theirs(
        prompt_embeds=torch.from_numpy(text[None]),
        negative_prompt_embeds=torch.from_numpy(uncond[None]),
        latents=nchw(noise[None]),
        num_inference_steps=4,
        guidance_scale=3.0,
        output_type="latent",
    ).images
    schedule = NoiseSchedule.from_config(ours.scheduler)
    prior = Prior(ours.params, schedule, ours.networks, Path())
    grid = theirs.scheduler.timesteps.tolist()

    @jax.jit
    def sample(params, x):
        told, not_told = {"text": text}, {"text": uncond}
        denoiser = classifier_free(prior.network(params), told, not_told)(3.0)
        for t, s in zip(grid, [*grid[1:], 0], strict=True):  # set_alpha_to_one is False
            x = ode.ddim_step(schedule, x, denoiser(x, t), t, s)
        return x

    check(sample(ours.params, noise), nhwc(expected)[0], 1e-4)
