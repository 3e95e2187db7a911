"""priors/stable_diffusion.py on tiny_sd, and with a camera, on random weights."""

import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.guidance import classifier_free
from dsd_jax.models.networks import build, param_shapes
from dsd_jax.models.weights import load_pipeline
from dsd_jax.priors import EMBEDDED, Viewpoint, load_prior
from dsd_jax.priors.stable_diffusion import Prior, Text, camera_embedding_input, load
from dsd_jax.rendering.cameras import orbit
from dsd_jax.schedule import NoiseSchedule

SCALE = 0.18215
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def prior(tiny_sd):
    return load(tiny_sd)


@pytest.fixture(scope="module")
def camera_prior(tiny_sd):
    """A one-level model with a camera and random weights."""
    pipeline = load_pipeline(tiny_sd)
    unet = {
        "block_out_channels": [32],
        "down_block_types": ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
        "sample_size": 4,
        "camera_dim": 16,
    }
    parts = (getattr(pipeline.networks, part).config.to_dict() for part in ("vae", "text_encoder"))
    networks = build(unet, *parts)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape) * 0.1, param_shapes(networks)["unet"])
    schedule = NoiseSchedule.from_config({**pipeline.scheduler, "prediction_type": "v_prediction"})
    return Prior({"unet": jax.tree.map(np.float32, params)}, schedule, networks, Path())


# ---- without a camera ------------------------------------------------------------------------


def test_what_the_folder_says(prior):
    assert prior.latent_shape == (64, 64, 4) and prior.image_size == 512
    assert not prior.denoises_together
    assert prior.schedule.num_train_timesteps == 1000
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(prior.params))


def test_eps_is_what_the_unet_predicts(prior):
    """What that is for these weights: tests/models/test_golden.py, tests/parity."""
    keys = jax.random.split(jax.random.key(0))
    x, text = jax.random.normal(keys[0], (2, 4, 4, 4)), jax.random.normal(keys[1], (2, 5, 32))
    t = jnp.array([17, 803])

    @jax.jit
    def run(params):
        eps = prior.network(params)(x, t, {"text": text})
        return eps, prior.networks.unet.apply({"params": params["unet"]}, x, t, text)

    eps, expected = run(prior.params)
    assert eps.dtype == jnp.float32
    np.testing.assert_allclose(eps, expected, rtol=1e-5, atol=1e-6)


def vae(prior, x, method):
    apply = partial(prior.networks.vae.apply, method=method)
    return jax.jit(apply)({"params": prior.params["vae"]}, x)


def test_encode_scales_the_mean(prior):
    """An image 32 wide: with a latent of 4 nothing is resized."""
    small = prior.replace(networks=resized(prior, 4))
    image = jax.random.uniform(jax.random.key(0), (32, 32, 3))
    mean, _ = vae(prior, 2 * image[None] - 1, "encode")
    x = jax.jit(small.encode)(prior.params, image)
    np.testing.assert_allclose(x, SCALE * mean[0], rtol=1e-4, atol=1e-5)


def test_encode_resizes_and_is_differentiable(prior):
    small = prior.replace(networks=resized(prior, 4))
    image = jax.random.uniform(jax.random.key(0), (16, 16, 3))
    larger = jax.image.resize(image, (32, 32, 3), "bilinear")
    np.testing.assert_allclose(
        jax.jit(small.encode)(prior.params, image),
        jax.jit(small.encode)(prior.params, larger),
        rtol=1e-5,
        atol=1e-6,
    )
    grad = jax.jit(jax.grad(lambda i: small.encode(prior.params, i).sum()))(image)
    assert grad.shape == image.shape and (jnp.abs(grad).max((0, 1)) > 0).all()


def test_decode_is_an_image(prior):
    z = 3 * jax.random.normal(jax.random.key(0), (4, 4, 4))
    image = jax.jit(prior.decode)(prior.params, SCALE * z)
    decoded = vae(prior, z[None], "decode")[0]
    assert image.dtype == jnp.float32 and image.shape == (32, 32, 3)
    assert (image == 0).any() and (image == 1).any()
    np.testing.assert_allclose(image, np.clip(decoded / 2 + 0.5, 0, 1), atol=1e-5)


def resized(prior, sample_size):
    from dataclasses import replace

    unet = prior.networks.unet
    return prior.networks._replace(
        unet=unet.clone(config=replace(unet.config, sample_size=sample_size))
    )


def test_prompts_are_padded_to_the_tokenizers_length(prior):
    ids = prior.tokenize(["abc", ""])
    assert ids.shape == (2, 77)
    start, end = 517, 518
    assert (ids[:, 0] == start).all() and (ids[1, 1:] == end).all() and (ids[0, -1] == end)
    text = prior.encode_prompt(prior.params, ["abc", ""])
    assert text.shape == (2, 77, 32) and text.dtype == jnp.float32
    encoder = prior.networks.text_encoder
    expected = jax.jit(encoder.apply)({"params": prior.params["text_encoder"]}, jnp.asarray(ids))
    np.testing.assert_allclose(text, expected, rtol=1e-5, atol=1e-6)


def test_a_missing_tokenizer_is_named(prior, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"prompts need a tokenizer"):
        prior.replace(folder=tmp_path).tokenize(["a"])


# ---- cameras and views ----------------------------------------------------------------------


def test_camera_vector_by_hand():
    """A camera at azimuth 90 degrees (+x), elevation 0: OpenGL (d, 0, 0), Blender (1, 0, 0)."""
    matrix = orbit(math.radians(90), 0.0, 2.7, 0.7).camera_to_world
    right, up, backward = (0, 1, 0), (0, 0, 1), (1, 0, 0)
    expected = np.vstack([np.stack([right, up, backward, backward], 1), [0, 0, 0, 1]])
    vector = camera_embedding_input(matrix)
    np.testing.assert_allclose(vector, expected.ravel(), atol=1e-6)


def test_camera_vector_of_the_golden_mvdream_camera():
    """Azimuth 20, elevation 15 degrees: the camera that DSD_GOLDEN's mvdream_tiny was made with."""
    matrix = orbit(math.radians(20), math.radians(15), 2.7, 0.7).camera_to_world
    sin_a, cos_a = math.sin(math.radians(20)), math.cos(math.radians(20))
    sin_e, cos_e = math.sin(math.radians(15)), math.cos(math.radians(15))
    expected = [
        [cos_a, -sin_a * sin_e, sin_a * cos_e, sin_a * cos_e],
        [sin_a, cos_a * sin_e, -cos_a * cos_e, -cos_a * cos_e],
        [0, cos_e, sin_e, sin_e],
        [0, 0, 0, 1],
    ]
    vectors = camera_embedding_input(jnp.stack([matrix, matrix]))
    assert vectors.shape == (2, 16)
    np.testing.assert_allclose(vectors[1], np.ravel(expected), atol=1e-6)


def test_views_go_through_the_network_as_groups(camera_prior):
    """[n, v, h, w, c] with cameras equals the UNet on the flattened batch, turned into eps."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 4, 4, 4, 4))
    text, camera = jax.random.normal(keys[1], (2, 3, 32)), jax.random.normal(keys[2], (2, 4, 16))
    t = jnp.array([100, 900])

    @jax.jit
    def run(params):
        network = camera_prior.network(params, num_views=4)
        eps = network(x, t, {"text": text, "camera": camera})
        flat = (a.reshape(8, *a.shape[2:]) for a in (x, camera))
        flat_x, flat_camera = flat
        v = camera_prior.networks.unet.apply(
            {"params": params["unet"]}, flat_x, jnp.repeat(t, 4), jnp.repeat(text, 4, 0),
            flat_camera, 4,
        )  # fmt: skip
        return eps, v.reshape(x.shape)

    eps, v = run(camera_prior.params)
    abar = camera_prior.schedule.alphas_cumprod[t].reshape(2, 1, 1, 1, 1)
    np.testing.assert_allclose(eps, jnp.sqrt(abar) * v + jnp.sqrt(1 - abar) * x, atol=1e-5)


@pytest.fixture(scope="module")
def denoise(camera_prior):
    """eps of four views of 4 x 4 at t = 300: (viewpoints [4] or None, guidance scale) -> eps."""
    keys = jax.random.split(jax.random.key(1), 2)
    x, text = jax.random.normal(keys[0], (4, 4, 4, 4)), jax.random.normal(keys[1], (2, 3, 32))
    told = Text(text[0], jnp.full((4, 3, 32), jnp.nan), text[1])  # in words it is told no view

    @partial(jax.jit, static_argnums=2)
    def run(params, viewpoints, scale):
        if viewpoints is None:
            network = camera_prior.network(params, 4)
            return classifier_free(network, {"text": text[0]}, {"text": text[1]})(scale)(x, 300)
        return camera_prior.denoiser_at(params, told, viewpoints)(scale)(x, 300)

    return partial(run, camera_prior.params)


def viewpoints_of(azimuth):
    azimuth = jnp.asarray(azimuth)
    elevation = jnp.full_like(azimuth, 0.3)
    return Viewpoint(azimuth, elevation, orbit(azimuth, elevation, 2.7, 0.7).camera_to_world)


AROUND = viewpoints_of([0.2, 1.7, 3.1, 5.0])


def test_guidance(denoise):
    without, plain, guided = (denoise(AROUND, scale) for scale in (0.0, 1.0, 3.0))
    assert jnp.abs(plain - without).max() > 1e-2
    np.testing.assert_allclose(guided, without + 3 * (plain - without), rtol=1e-4, atol=1e-4)


def test_cameras_matter_and_may_be_left_out(denoise):
    backwards = jax.tree.map(lambda leaf: leaf[::-1], AROUND)
    results = [denoise(viewpoints, 3.0) for viewpoints in (AROUND, backwards, None)]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert jnp.abs(results[a] - results[b]).max() > 1e-3


def test_a_prior_with_a_camera_is_asked_as_its_network_is(camera_prior):
    """A number of views is a leading axis; one view may have it, too."""
    keys = jax.random.split(jax.random.key(1), 2)
    x, text = jax.random.normal(keys[0], (4, 4, 4, 4)), jax.random.normal(keys[1], (2, 3, 32))
    told = Text(text[0], jnp.full((4, 3, 32), jnp.nan), text[1])

    @jax.jit
    def run(params):
        def asked(x, viewpoints):
            return camera_prior.denoiser_at(params, told, viewpoints)(3.0)(x, 300)

        def expected(x, viewpoints, num_views):
            camera = camera_embedding_input(viewpoints.camera_to_world)
            prompts = ({"text": part, "camera": camera} for part in text)
            return classifier_free(camera_prior.network(params, num_views), *prompts)(3.0)(x, 300)

        one = jax.tree.map(lambda leaf: leaf[0], AROUND)
        alone = asked(x[:1], jax.tree.map(lambda leaf: leaf[:1], AROUND))
        found = asked(x, AROUND), asked(x[0], one), alone[0]
        plain = camera_prior.prediction_at(params, told, AROUND)(x, 300)
        at_one = camera_prior.denoiser_at(params, told, AROUND)(1.0)(x, 300)
        return found, (expected(x, AROUND, 4), *[expected(x[0], one, 1)] * 2), plain - at_one

    found, expected, difference = run(camera_prior.params)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(difference, 0)
    assert camera_prior.tells_apart(told) == "cameras"
    assert camera_prior.samples_per_prediction(told) == 2


# ---- names ----------------------------------------------------------------------------------


def test_load_prior_takes_a_folder(tiny_sd, prior):
    again = load_prior(tiny_sd, jnp.bfloat16, jnp.float32)
    assert again.networks.unet.dtype == jnp.bfloat16
    assert again.networks.unet.config == prior.networks.unet.config


def test_an_unknown_name_gets_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"'toybx' is neither .* did you mean 'toybox'\?") as error:
        load_prior("toybx")
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="not a diffusers folder"):
        load_prior(tmp_path)


def test_absent_weights_are_said(monkeypatch, tmp_path):
    monkeypatch.setitem(EMBEDDED, "toybox", tmp_path)
    with pytest.raises(FileNotFoundError, match="weights of prior 'toybox' are not in"):
        load_prior("toybox")
