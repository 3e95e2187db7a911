"""The prior of novel views: what it trains on, and the whole recipe in miniature."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.cli import train_prior
from dsd_jax.data.objects import load_objects
from dsd_jax.data.pictures import plan_views
from dsd_jax.priors import load_prior
from dsd_jax.priors.zero123 import Prior, View, project
from dsd_jax.schedule import NoiseSchedule
from dsd_jax.training import (
    common,
    corpus,
    image_prior,
    novel_view,
    novel_view_prior,
    novel_view_scores,
)
from dsd_jax.training.export import SCHEDULER
from dsd_jax.training.settings import TrainingSettings

pytestmark = pytest.mark.usefixtures("quick_compilation")

SCHEDULE = NoiseSchedule.from_config(SCHEDULER)


@pytest.fixture(scope="module")
def prior(tiny_prior_folder) -> Prior:
    """Random weights in all layers, so that everything told has an effect."""
    networks, vae = image_prior.build(tiny_prior_folder, 16, True, jnp.float32)
    rng = np.random.default_rng(0)
    trained = jax.tree.map(
        lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32),
        image_prior.trained_shapes(networks),
    )
    return Prior({**trained, "vae": vae}, SCHEDULE, networks, tiny_prior_folder)


@pytest.fixture(scope="module")
def pairs(prior) -> novel_view.Pairs:
    """Two objects, the second never drawn; two views of each in two palettes."""
    mesh = common.data_mesh()
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (2, 2, 16, 16, 1))
    rgba = np.concatenate([rng.integers(0, 256, (2, 2, 16, 16, 3)) * alpha // 255, alpha], -1)
    angle, tint = np.array([[0, 1.0], [0, 0]], np.float32), np.ones((2, 2, 3), np.float32)
    tint[0, 1] = 0.5
    rgba = common.shard_objects(mesh, rgba.astype(np.uint8))
    latents = corpus.encode_views(
        mesh, prior.networks.vae, prior.params["vae"], rgba, angle, tint, novel_view.WHITE
    )
    return novel_view.Pairs(
        rgba=rgba,
        latents=latents,
        angle=jnp.asarray(angle),
        tint=jnp.asarray(tint),
        azimuth=jnp.array([[3.0, -3.0]] * 2),
        elevation=jnp.array([[0.1, 0.4]] * 2),
        weight=jnp.array([1.0, 0.0]),
    )


@pytest.fixture(scope="module")
def batch(pairs) -> novel_view.Batch:
    draw = jax.jit(novel_view.draw_pairs, static_argnums=2)
    return jax.device_get(draw(jax.random.key(0), pairs, 32))


def test_pairs_are_two_views_of_one_object_in_one_palette(pairs, batch):
    """Poses by hand: from view 0 to 1 the camera climbs 0.3 and turns by 2 pi - 6."""
    turn = 2 * np.pi - 6
    poses = {
        (0, 0): [0, 0, 1, 0],
        (1, 1): [0, 0, 1, 0],
        (0, 1): [-0.3, np.sin(turn), np.cos(turn), 0],
        (1, 0): [0.3, -np.sin(turn), np.cos(turn), 0],
    }
    latents, seen = np.asarray(pairs.latents[0], np.float32), set()
    for known, target, pose in zip(batch.known, batch.target, batch.pose, strict=True):
        i, palette = np.argwhere((latents == known).all((2, 3, 4)))[0]
        j, same = np.argwhere((latents == target).all((2, 3, 4)))[0]
        assert palette == same
        np.testing.assert_allclose(pose, poses[i, j], atol=1e-5)
        seen.add((i, j, palette))
    assert len(seen) == 8  # every pair in both palettes, of the first object only


def test_the_picture_is_composed_on_white(pairs, batch):
    latents = np.asarray(pairs.latents[0, :, 0], np.float32)
    row, view = np.argwhere((batch.known[:, None] == latents).all((2, 3, 4)))[0]
    rgba = np.asarray(pairs.rgba[0, view], np.float32) / 255
    np.testing.assert_allclose(batch.picture[row], rgba[..., :3] + 1 - rgba[..., 3:], atol=1e-6)


def test_it_is_told_in_training_what_it_is_told_in_use(prior, batch):
    """`Prior.encode_image` of the same picture: latent, and embedding with its preprocessing."""
    images = jax.jit(jax.vmap(prior.encode_image, (None, 0)))(prior.params, batch.picture)
    np.testing.assert_allclose(batch.known, images.latent, atol=2e-3)  # float16
    told = jax.jit(novel_view.context, static_argnums=0)(prior.networks, prior.params, batch)
    expected = project(prior.params["cc_projection"], images.embedding, batch.pose)
    assert told.shape == (32, 1, 32) and np.std(told, 0).min() > 1e-3
    np.testing.assert_allclose(told, expected, rtol=1e-4, atol=1e-5)


def test_without_condition_it_knows_neither_context_nor_latent(prior, pairs):
    params = {part: tree for part, tree in prior.params.items() if part != "vae"}

    @jax.jit
    def gradients(data, dropout):
        loss = novel_view.make_loss(prior.networks, SCHEDULE, 4, dropout)
        return jax.grad(loss, has_aux=True)(params, data, {}, jax.random.key(0))[0]

    def of(dropout, added):
        data = dataclasses.replace(pairs, rgba=pairs.rgba + added)
        return jax.tree.map(np.asarray, gradients(data, dropout))

    untold, other = of(1.0, np.uint8(0)), of(1.0, np.uint8(7))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(untold["image_encoder"]))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(untold["cc_projection"]))
    jax.tree.map(np.testing.assert_array_equal, untold["unet"], other["unet"])
    told = of(0.0, np.uint8(0))
    assert np.abs(told["cc_projection"]["kernel"]).max() > 1e-6
    # the 8 input channels: the last four are the known latent
    assert not untold["unet"]["conv_in"]["kernel"][:, :, 4:].any()
    assert told["unet"]["conv_in"]["kernel"][:, :, 4:].any()


def test_errors_at_high_t_count_as_those_of_v_up_to_a_limit(prior, pairs, monkeypatch):
    """With every pair at one t the loss is the error times min(1 / alpha_t^2, limit)."""
    params = {part: tree for part, tree in prior.params.items() if part != "vae"}
    for t, expected in ((0, 1 / SCHEDULE.alphas_cumprod[0]), (999, 20.0)):
        monkeypatch.setattr(novel_view, "draw_timesteps", lambda key, T, n, t=t: jnp.full(n, t))
        loss = novel_view.make_loss(prior.networks, SCHEDULE, 4, noisy_weight=20.0)
        found, logs = jax.jit(loss)(params, pairs, {}, jax.random.key(0))
        np.testing.assert_allclose(found, expected * logs["error"], rtol=1e-5)


def test_what_has_no_colour_is_tinted_and_never_white(packed):
    data = load_objects(packed)
    angle, tint = novel_view.palettes(np.random.default_rng(0), data, 3)
    assert angle.shape == (3, 3) and tint.shape == (3, 3, 3)
    assert (angle[:2, 0] == 0).all() and (angle[:2, 1:] != 0).all() and (tint[:2] == 1).all()
    assert (angle[2] == 0).all()
    assert ((np.ptp(tint[2], -1) > 0.02) | (tint[2].max(-1) < 0.7)).all()  # coloured or dark


def test_weights_leave_out_what_is_held_out(packed_with_held_out):
    weights = novel_view.weights(load_objects(packed_with_held_out), 5)
    np.testing.assert_allclose(weights, [1, 2**-0.3, 1, 0, 0])


def test_the_pose_starts_with_as_much_weight_as_the_embedding(prior):
    kernel = image_prior.start(prior.networks, jax.random.key(0))["cc_projection"]["kernel"]
    assert kernel.shape == (36, 32)
    embedding, pose = np.square(kernel[:32]).sum(0).mean(), np.square(kernel[32:]).sum(0).mean()
    assert 0.5 < pose / embedding < 2


def test_networks_fit_the_budget():
    """float16: 11.9 MB with room for the headers."""
    vae = {"block_out_channels": [8] * 4, "norm_num_groups": 8, "latent_channels": 8}
    unet, encoder = image_prior.configs(128, 16, 8)
    networks = image_prior.zero123.build(unet, vae, encoder)
    leaves = jax.tree.leaves(image_prior.trained_shapes(networks))
    assert 11e6 < 2 * sum(leaf.size for leaf in leaves) < 11.9e6


# ---- the recipe -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(packed_with_held_out, tiny_prior_folder, tmp_path_factory):
    """Runs the script in two sittings; returns (folder, logs)."""
    out = tmp_path_factory.mktemp("toybox_1to3")
    logs: list[str] = []
    training = TrainingSettings(
        out=out,
        vae=tiny_prior_folder,
        groups=1,
        palettes=2,
        deformed=1,
        small=True,
        resolution=16,
        unet_batch=2,
        unet_minutes=1e-4,
    )
    args = train_prior.Args(packed_with_held_out, "novel-view", training=training)
    first = dataclasses.replace(args, max_minutes=0.0)  # one step, not a report
    assert train_prior.run(first, logs.append) == 0
    assert train_prior.run(args, logs.append) == 0
    return out, logs


def test_stops_and_continues(trained):
    _, logs = trained
    assert any("run the same command again" in line for line in logs)
    assert any("novel_view: step 1," in line for line in logs)  # the second sitting continued
    assert any("sheet.jpg shows 1 of the objects" in line for line in logs)


def test_export_is_a_prior_with_the_other_s_autoencoder(trained, tiny_prior_folder, tmp_path):
    from PIL import Image

    out, _ = trained
    folder = out / "export" / "toybox-1to3"
    assert not (folder / "vae").exists()
    prior = load_prior(folder)
    assert isinstance(prior, Prior) and prior.pose_kind == "distance"
    assert prior.image_size == 16 and prior.latent_shape == (4, 4, 4)
    vae = load_prior(tiny_prior_folder).params["vae"]
    jax.tree.map(np.testing.assert_array_equal, prior.params["vae"], vae)
    image = jax.jit(prior.encode_image)(prior.params, jnp.full((16, 16, 3), 0.5))
    pose = prior.pose(View(0.2, 1.0, 2.7), View(0.1, 0.3, 2.7))
    eps = jax.jit(lambda p, x: prior.denoiser_at_pose(p, image, pose)(3.0)(x, 400))(
        prior.params, jnp.ones((4, 4, 4))
    )
    assert eps.shape == (4, 4, 4) and np.isfinite(eps).all()
    assert Image.open(out / "sheet.jpg").size[0] > 13 * 96

    moved = Path(shutil.copytree(folder, tmp_path / "assets" / "moved"))
    with pytest.raises(FileNotFoundError, match=r"shares the vae of .* side by side again$"):
        load_prior(moved)
    shutil.copytree(tiny_prior_folder, tmp_path / "assets" / tiny_prior_folder.name)
    assert load_prior(moved).networks == prior.networks


@pytest.mark.slow
def test_scores_of_an_export(trained, packed_with_held_out, tmp_path, monkeypatch):
    """Features are pixels, which are quick."""

    def pixels(network, images):
        return images.reshape(*images.shape[:-3], -1)

    monkeypatch.setattr(novel_view_scores, "load_efficientnet", lambda: None)
    monkeypatch.setattr(novel_view_scores, "features_in_batches", pixels)
    folder = trained[0] / "export" / "toybox-1to3"
    settings = TrainingSettings(out=tmp_path)
    args = train_prior.Args(packed_with_held_out, "novel-view", folder, training=settings)
    logs: list[str] = []
    assert train_prior.run(args, logs.append) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert all(0 < scores[f"{name}_{turn}"] < 2 for name in ("between", "to_truth")
               for turn in (45, 180))  # fmt: skip
    assert any("between_45_over_180" in line for line in logs)
    assert (tmp_path / "sheet.jpg").is_file()


def test_training_goes_on_from_an_exported_folder(trained, prior):
    out, _ = trained
    stored = image_prior.load(out / "export" / "toybox-1to3", prior.networks)
    assert set(stored) == {"unet", "image_encoder", "cc_projection"}
    _, encoder = image_prior.configs(16, 4, 4)
    unet = prior.networks.unet.config.to_dict()
    larger = image_prior.zero123.build(
        unet, prior.networks.vae.config.to_dict(), encoder | {"projection_dim": 32}
    )
    with pytest.raises(ValueError, match=r"toybox-1to3: image_encoder/.* has another shape"):
        image_prior.load(out / "export" / "toybox-1to3", larger)


def test_shapes_are_those_of_the_views(prior, packed):
    data = load_objects(packed)
    views = plan_views(np.random.default_rng(0), 3, 2)
    shapes = novel_view.shapes(prior.networks, views, data, np.array([0, 1, 2, 2]), 5)
    assert shapes.rgba.shape == (4, 8, 16, 16, 4) and shapes.latents.shape == (4, 8, 5, 4, 4, 4)
    np.testing.assert_array_equal(shapes.azimuth[3], views.azimuth[2])


def test_latents_larger_than_noise_are_refused():
    latents = jax.random.normal(jax.random.key(0), (8, 4, 2, 4, 4, 4)).astype(jnp.float16)
    novel_view_prior.check_scale(latents, 1.0, Path("prior"))
    with pytest.raises(
        ValueError, match=r"^prior: scaling_factor 2 gives .* deviation [12]\.\d\d,"
    ):
        novel_view_prior.check_scale(latents, 2.0, Path("prior"))
