"""The whole recipe in miniature: render, train, stop, continue, export, load, sample."""

import json

import jax
import numpy as np
import pytest

from dsd_jax.cli import train_prior
from dsd_jax.data.objects import load_objects
from dsd_jax.priors.stable_diffusion import load
from dsd_jax.training import corpus, evaluate
from dsd_jax.training.settings import TrainingSettings

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def trained(packed, tmp_path_factory):
    """Runs the script until it is finished, in several sittings; returns (folder, logs)."""
    out = tmp_path_factory.mktemp("toybox")
    logs: list[str] = []
    training = TrainingSettings(
        out=out,
        groups=1,
        palettes=2,
        small=True,
        resolution=32,
        vae_batch=4,
        unet_batch=1,
        vae_minutes=0.001,
        unet_minutes=0.001,
    )
    # no time at all: stops right after compiling the autoencoder's step
    args = train_prior.Args(packed, max_minutes=0.0, training=training)
    assert train_prior.run(args, logs.append) == 0
    assert not (out / "export").exists()
    assert train_prior.run(train_prior.Args(packed, training=training), logs.append) == 0
    return out, logs


def test_stops_and_continues(trained):
    _, logs = trained
    assert any("run the same command again" in line for line in logs)
    assert any("vae: step 1," in line for line in logs)  # the second sitting continued


def test_export_is_a_prior(trained):
    out, _ = trained
    prior = load(out / "export")
    assert prior.denoises_together and prior.latent_shape == (4, 4, 4)
    assert "tower" in json.loads((out / "export/words.json").read_text())
    images = evaluate.sample(prior, ["a tower", "a brick"], 2, (0, 90, 180, 270), steps=2)
    assert images.shape == (2, 2, 4, 32, 32, 3)
    assert np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1
    assert not np.allclose(images[0, 0], images[0, 1])  # another seed, another image


def test_latents_have_unit_deviation(trained):
    out, _ = trained
    latents = np.load(out / "latents.npy").astype(np.float32)
    scaling = json.loads((out / "export/vae/config.json").read_text())["scaling_factor"]
    assert latents.shape[:3] == (3, 4, 2)
    assert abs(np.std(latents[::7, ::3, 0]) * scaling - 1) < 1e-3


def test_prompts_follow_the_palette(packed):
    data = load_objects(packed)
    palettes = corpus.make_palettes(np.random.default_rng(0), data, 3)
    prompts = corpus.wordings(np.random.default_rng(1), data, palettes, 12)
    assert any("red" in p.split() for p in prompts[0][0])  # its own colour keeps the word
    assert not any("red" in p.split() for p in prompts[0][1])  # a turned hue loses it
    tint = palettes.name[2][1]
    assert any(tint in p for p in prompts[2][1])
    assert np.allclose(palettes.angle[2], 0) and np.allclose(palettes.tint[0], 1)


def test_weights_lift_rare_categories():
    weight = corpus.object_weights(["tree"] * 4 + ["dog"], 6)
    np.testing.assert_allclose(weight, [0.5, 0.5, 0.5, 0.5, 1.0, 0.0])
    assert corpus.padded_indices(5, 2).tolist() == [0, 1, 2, 3, 4, 4]


def test_learning_rate():
    from dsd_jax.training.common import learning_rate

    assert learning_rate(0.0, 0, 1.0, warmup_steps=10) == pytest.approx(0.1)
    assert learning_rate(0.5, 100, 1.0, warmup_steps=10) == pytest.approx(0.51)
    assert learning_rate(1.0, 100, 1.0, warmup_steps=10) == pytest.approx(0.02)


def test_gradient_is_the_mean_over_devices():
    """One step on one device equals plain Adam on the loss."""
    import jax.numpy as jnp
    import optax

    from dsd_jax.training import common

    mesh = common.data_mesh()
    state = common.init_state({"w": jnp.array([[1.0, -2.0]])})
    step = common.make_step(mesh, lambda p, d, c, k: (jnp.mean((p["w"] - d) ** 2), {}))
    data = common.shard_objects(mesh, jnp.zeros((mesh.size, 1, 2)))
    new, _ = step(state, data, {}, jax.random.key(0), jnp.float32(0.1))
    reference = optax.adamw(0.1, b1=0.9, b2=0.99, weight_decay=0.01)
    w = jnp.array([[1.0, -2.0]])
    gradient = w / jnp.maximum(1.0, jnp.linalg.norm(w))  # d mean(w^2) = w for two entries
    update, _ = reference.update(gradient, reference.init(w), w)
    np.testing.assert_allclose(new.params["w"], w + update, rtol=1e-5)
