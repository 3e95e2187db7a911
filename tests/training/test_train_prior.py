"""The whole recipe in miniature: render, train, stop, continue, export, load, sample."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.cli import train_prior
from dsd_jax.data.objects import load_objects
from dsd_jax.models import networks
from dsd_jax.priors import EMBEDDED
from dsd_jax.priors.stable_diffusion import load
from dsd_jax.training import adversary, common, corpus, evaluate, export, growing, stage, views
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
    assert prior.denoises_together and prior.latent_shape == (4, 4, 8) and prior.sees_opacity
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
def test_scores_of_an_export(trained, packed, tmp_path, monkeypatch):
    """All are there, and can be read again; features are pixels, and samples are quick."""

    def pixels(network, images):
        return images.reshape(*images.shape[:-3], -1)[..., :1280]

    monkeypatch.setattr(evaluate, "Sampler", functools.partial(Sampler, steps=2))
    monkeypatch.setattr(evaluate, "load_efficientnet", lambda: None)
    monkeypatch.setattr(evaluate, "features_in_batches", pixels)
    logs: list[str] = []
    args = train_prior.Args(
        packed, evaluate=trained[0] / "export", training=TrainingSettings(out=tmp_path)
    )
    assert train_prior.run(args, logs.append) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores["right_per_category"]) == {"cube", "tower"}  # a brick is not known
    assert scores["right_of_real_per_category"]["tower"] == pytest.approx(0.93, abs=0.01)
    assert "tower" in scores["detail_kept_per_category"]
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
    weight = corpus.object_weights(["tree"] * 4 + ["dog"], 6, exponent=0.5)
    np.testing.assert_allclose(weight, [0.5, 0.5, 0.5, 0.5, 1.0, 0.0])
    assert corpus.padded_indices(5, 2).tolist() == [0, 1, 2, 3, 4, 4]


def test_pictures_keep_their_opacity_as_a_fourth_channel():
    """In a batch of the autoencoder and in a palette; colours are as without it."""
    rgba = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 4), np.uint8)
    drawn = views.draw_pictures(jax.random.key(3), views.Views(rgba, np.ones(2, np.float32)), 6)
    assert drawn.shape == (6, 8, 8, 4) and np.abs(drawn[..., 3]).max() <= 1
    plain, whole = (corpus.recolour(rgba[0], 0.3, np.ones(3), opacity=o) for o in (False, True))
    np.testing.assert_array_equal(plain, whole[..., :3])
    np.testing.assert_allclose(whole[..., 3], rgba[0, ..., 3] / 127.5 - 1, atol=1e-6)


def test_networks_go_on_with_more_channels():
    """What was there computes as before, whatever the new inputs are."""
    old, new = (
        TrainingSettings(resolution=16, small=True, opacity=channels > 4, latent_channels=channels)
        for channels in (4, 8)
    )
    before, after = (networks.build(*export.configs(300, settings)) for settings in (old, new))
    params, fresh = (
        networks.init_params(n, jax.random.key(k)) for k, n in enumerate((before, after))
    )
    vae = growing.grown(params["vae"], fresh["vae"], growing.VAE)
    unet = growing.grown(params["unet"], fresh["unet"], growing.UNET)
    assert jax.tree.map(np.shape, vae) == jax.tree.map(np.shape, fresh["vae"])
    keys = jax.random.split(jax.random.key(2), 3)
    picture, z = (
        jax.random.normal(keys[0], (1, 16, 16, 4)),
        jax.random.normal(keys[1], (1, 2, 2, 8)),
    )

    def both(part, weights, inputs, **how):
        for n, w, x in zip((before, after), weights, inputs, strict=True):
            yield getattr(n, part).apply({"params": w}, *x, **how)

    vaes = params["vae"], vae
    encoded = both("vae", vaes, ((picture[..., :3],), (picture,)), method="encode")
    for was, now in zip(*encoded, strict=True):  # the mean, and the logarithm of the variance
        np.testing.assert_allclose(now[..., :4], was, atol=1e-5)
    was, now = both("vae", vaes, ((z[..., :4],), (z,)), method="decode")
    np.testing.assert_allclose(now[..., :3], was, atol=1e-5)
    rest = jnp.full(1, 7), jax.random.normal(keys[2], (1, 5, 64)), jnp.zeros((1, 16))
    was, now = both("unet", (params["unet"], unet), ((z[..., :4], *rest), (z, *rest)))
    np.testing.assert_allclose(now[..., :4], was, atol=1e-5)
    for layers in ({}, {"unet": growing.UNET}):  # unknown layers, or fewer channels
        with pytest.raises(ValueError, match="here: unet/conv_in/kernel has another shape"):
            growing.all_grown(Path("here"), {"unet": unet}, {"unet": params["unet"]}, layers)


def test_pairs_of_latents_grow_apart():
    """A noisy latent and a known one: each keeps its place."""
    layers = growing.UNET_OF_PAIRS
    old, new = ({"conv_in": {"kernel": np.full((1, 1, c, 1), v)}} for c, v in ((2, 5.0), (4, 1.0)))
    kernel = growing.grown(old, new, layers)["conv_in"]["kernel"]
    np.testing.assert_array_equal(kernel.ravel(), [5, 0, 5, 0])


def test_the_adversary_counts_as_much_as_it_is_said():
    """By hand: its gradient has the wanted length and direction, and only where objects are."""
    x = jnp.array([[[[1.0], [2.0]]]])
    error, weight = lambda y: jnp.sum(3 * y[0, 0, 0]), jnp.array([[[0.0, 1.0]]])
    found = jax.grad(
        lambda y: adversary.sharpen(lambda z: 7 * z[..., 0], error, y, weight, share=0.5)
    )(x)
    np.testing.assert_allclose(found, [[[[0.0], [-1.5]]]], rtol=1e-6)
    real, drawn = jnp.array([[[2.0, 0.5]]]), jnp.array([[[-3.0, 0.0]]])
    assert adversary.hinge(real, drawn, weight) == pytest.approx(1.5)
    opacity = jnp.zeros((1, 32, 32)).at[0, 2, 2].set(1e-3)
    there = adversary.where_objects_are(opacity)
    assert there.shape == (1, 8, 8) and there[0, 0, 0] == 1 and there[0, 4, 4] == 0
    scores = adversary.Adversary(jnp.float32)
    assert scores.init_with_output(jax.random.key(0), jnp.zeros((1, 32, 32, 4)))[0].shape == (
        1,
        8,
        8,
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


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--vae-minutes", "-1"], "--vae-minutes must be a number from 0 on, not -1"),
        (["--unet-minutes", "nan"], "--unet-minutes must be a number from 0 on, not nan"),
        (["--unet-minutes", "inf"], "--unet-minutes must be a number from 0 on, not inf"),
        (["--max-minutes", "-3"], "--max-minutes must be a number from 0 on, not -3"),
        (["--vae-rate", "nan"], "--vae-rate must be a positive, finite number, not nan"),
        (["--unet-batch", "0"], "--unet-batch must be at least 1, not 0"),
        (["--groups", "-1"], "--groups must be at least 1, not -1"),
        (["--resolution", "30"], "--resolution must be a multiple of 32 up to 1024, not 30"),
        (["--noisy-weight", "0.5"], "--noisy-weight must be a number from 1 on, not 0.5"),
        (["--vae-sharpness", "2"], "--vae-sharpness must lie in 0..1, not 2"),
        (["--limit", "-2"], "--limit must be from 0 on"),
        (["--continue-from", "nowhere"], "--continue-from nowhere is no folder of a prior with te"),
        (["--vae", "nowhere"], "--vae nowhere is no folder of a prior with vae"),
        (["--evaluate", "nowhere"], "--evaluate nowhere is no folder of a prior with text_encoder"),
        (["--task", "novel-view", "--continue-from", str(EMBEDDED["toybox"])],
         "it has no image_encoder; give one"),
        (["--out", "{objects}/x"], "cannot be written"),
        (["--objects", "none.npz"], "none.npz does not exist: pack one"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(packed, tmp_path, capsys, flags, said):
    own = [flag.format(objects=packed) for flag in flags]
    for name, value in (("--objects", packed), ("--out", tmp_path / "out")):
        own = own if name in own else [*own, name, str(value)]
    assert train_prior.main(own) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_checkpoint_of_other_flags_or_damaged_is_named(tmp_path):
    state = common.init_state({"vae": {"kernel": jnp.zeros((2, 3))}})
    other = common.init_state({"vae": {"kernel": jnp.zeros((2, 4))}})
    stage.save(other, tmp_path, "vae", 1.0)
    with pytest.raises(ValueError, match=r"vae\.safetensors does not fit: .*another --out, or rem"):
        stage.restore(state, tmp_path, "vae")
    (tmp_path / "vae.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"vae\.safetensors does not fit: .*another --out, or rem"):
        stage.restore(state, tmp_path, "vae")


def test_training_that_diverges_is_no_success(tmp_path):
    """What is not finite is not saved either."""
    state = common.init_state({"vae": {"kernel": jnp.zeros((2, 3))}})

    def step(state, data, constants, key, rate):
        return state, {"loss": jnp.asarray(jnp.nan)}

    how = {"folder": tmp_path, "name": "vae", "minutes": 1.0, "peak_rate": 1.0}
    with pytest.raises(ValueError, match="vae has diverged by step 1: lower its --vae-rate"):
        stage.train(state, step, None, {}, None, **how)
    assert not list(tmp_path.iterdir())
