"""The whole recipe in miniature: render, train, stop, continue, export, load, sample."""

import json

import jax
import numpy as np
import pytest

from dsd_jax.cli import train_prior
from dsd_jax.data.objects import load_objects
from dsd_jax.models import networks
from dsd_jax.priors.stable_diffusion import load
from dsd_jax.training import corpus, evaluate, export, views
from dsd_jax.training.sampling import AROUND, Sampler
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
    assert prior.denoises_together and prior.latent_shape == (4, 4, 4) and prior.sees_opacity
    assert "tower" in json.loads((out / "export/words.json").read_text())
    images = Sampler(prior, steps=2)(["a tower", "a brick"], 2, AROUND)
    assert images.shape == (2, 2, 4, 32, 32, 3)
    assert np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1
    assert not np.allclose(images[0, 0], images[0, 1])  # another seed, another image


def test_samples_are_of_a_seed_and_a_prompt(trained):
    """However many are made with it; guidance that ends at once is none."""
    sampler = Sampler(load(trained[0] / "export"), steps=3)
    many = sampler(["a tower", "a brick"], 9, (0, 90))
    assert many.shape == (2, 9, 2, 32, 32, 3)
    np.testing.assert_allclose(sampler(["a brick"], 9, (90,))[0, :, 0], many[1, :, 1], atol=1e-5)
    assert not np.allclose(many[0, 0], many[0, 8], atol=1e-3)
    late, plain = sampler(["a brick"], 1, guidance_below=0), sampler(["a brick"], 1, guidance=1)
    np.testing.assert_allclose(late, plain, atol=1e-2)
    assert sampler._run._cache_size() == 2  # eight seeds, or one


@pytest.mark.slow
def test_scores_of_an_export(trained, packed, tmp_path):
    """All are there, and can be read again."""
    logs: list[str] = []
    args = train_prior.Args(
        packed, evaluate=trained[0] / "export", training=TrainingSettings(out=tmp_path)
    )
    assert train_prior.run(args, logs.append) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores["right_per_category"]) == {"tower"}  # a brick and a cube are unknown
    assert scores["right_of_real"] > 0.5
    assert set(scores["detail_kept_per_category"]) == {"tower"}
    assert set(scores["grey_per_category"]) == set(evaluate.PAINTED)
    assert set(scores["direction_of_real"]) == {"car", "chair", "sofa", "fish"}
    for name in ("diversity", "diversity_guided_late", "diversity_four_views"):
        assert set(scores[f"{name}_of_real"]) <= set(evaluate.DIVERSE)
    assert any("grey" in line for line in logs) and (tmp_path / "samples_views.png").is_file()


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


def test_pictures_keep_their_opacity_as_a_fourth_channel():
    """In a batch of the autoencoder and in a palette; colours are as without it."""
    rgba = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 4), np.uint8)
    drawn = [
        views.draw_pictures(jax.random.key(3), views.Views(rgba, np.ones(2, np.float32)), 6, seen)
        for seen in (False, True)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1][..., :3])
    assert drawn[1].shape == (6, 8, 8, 4) and np.abs(drawn[1][..., 3]).max() <= 1
    plain, whole = (corpus.recolour(rgba[0], 0.3, np.ones(3), opacity=o) for o in (False, True))
    np.testing.assert_array_equal(plain, whole[..., :3])
    np.testing.assert_allclose(whole[..., 3], rgba[0, ..., 3] / 127.5 - 1, atol=1e-6)


def test_an_autoencoder_goes_on_with_opacity():
    """It draws colours as before, whatever opacity it is handed."""
    parts = [export.configs(300, 16, small=True, opacity=opacity) for opacity in (False, True)]
    before, after = (networks.build(*part) for part in parts)
    params = networks.init_params(before, jax.random.key(0))["vae"]
    wider = export.with_opacity(params)
    x = jax.random.uniform(jax.random.key(1), (1, 16, 16, 4), minval=-1)
    found, wanted = (
        module.vae.apply({"params": weights}, picture)
        for module, weights, picture in ((after, wider, x), (before, params, x[..., :3]))
    )
    np.testing.assert_allclose(found[..., :3], wanted, atol=1e-5)
    np.testing.assert_array_equal(found[..., 3], 0)
    assert jax.tree.map(np.shape, wider) == jax.tree.map(
        np.shape, networks.param_shapes(after)["vae"]
    )


def test_plain_words_are_for_coloured_objects(packed):
    """What has no colour is called white where it has none, and a tint is not always named."""
    data = load_objects(packed)
    palettes = corpus.make_palettes(np.random.default_rng(0), data, 3)
    prompts = corpus.wordings(np.random.default_rng(1), data, palettes, 12)
    assert palettes.name[2][0] == "white" and all("white" in p.split() for p in prompts[2][0])
    tint = palettes.name[2][1]
    named = [tint in p.split() for p in prompts[2][1]]
    assert any(named) and not all(named)
