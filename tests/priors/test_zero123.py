"""zero123.py: poses and projection by hand, and the prior. The authors' values: tests/parity."""

import json
import math
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models.clip_vision import preprocess
from dsd_jax.priors import EMBEDDED, Picture, Viewpoint, fov_deg_of, load_prior
from dsd_jax.priors.zero123 import ImageConditioning, Prior, View, load, pose_vector, project

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_pose_vector():
    np.testing.assert_allclose(
        pose_vector(0.2, math.pi / 6, -0.1), [0.2, 0.5, 3**0.5 / 2, -0.1], rtol=1e-6
    )
    np.testing.assert_array_equal(pose_vector(0.0, 0.0, 0.0), [0, 0, 1, 0])
    stacked = pose_vector(jnp.zeros(3), jnp.array([0.0, 1.0, 2.0]), jnp.ones(3))
    assert stacked.shape == (3, 4)
    np.testing.assert_array_equal(stacked[1], pose_vector(0.0, 1.0, 1.0))


def test_project_is_linear_in_embedding_then_pose():
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(9, 5)).astype("f"), rng.normal(size=5).astype("f")
    embedding, pose = rng.normal(size=(2, 3, 5)).astype("f"), rng.normal(size=(2, 4)).astype("f")
    expected = embedding @ kernel[:5] + (pose @ kernel[5:])[:, None] + bias
    layer = {"kernel": kernel, "bias": bias}
    np.testing.assert_allclose(project(layer, embedding, pose), expected, rtol=1e-5, atol=1e-5)
    mapped = jax.vmap(project, (None, 0, 0))(layer, embedding, pose)
    np.testing.assert_allclose(mapped, expected, rtol=1e-5, atol=1e-5)


# ---- the prior ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prior(zero123_folder):
    return load_prior(zero123_folder)


@pytest.fixture(scope="module")
def image():
    return jax.random.uniform(jax.random.key(0), (24, 24, 3))


@pytest.fixture(scope="module")
def conditioning(prior, image):
    return jax.jit(prior.encode_image)(prior.params, image)


def test_load_prior_knows_the_kind(prior, zero123_file):
    assert isinstance(prior, Prior) and prior.pose_kind == "distance"
    assert prior.image_size == 16 and prior.latent_shape == (8, 8, 4)
    assert prior.schedule.num_train_timesteps == 1000
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(prior.params))
    file = load_prior(str(zero123_file), jnp.bfloat16, jnp.float32)
    assert file.networks.image_encoder.dtype == jnp.bfloat16
    assert file.folder == zero123_file.parent
    jax.tree.map(np.testing.assert_array_equal, file.params, prior.params)


def test_it_takes_no_prompt(prior):
    with pytest.raises(ValueError, match=r"family, which takes an image and not a prompt$"):
        prior.condition("a chair")
    assert prior.warnings("a chair") == []


def test_an_image_is_embedded_and_encoded_without_scaling(prior, image, conditioning):
    """The latent for concatenation is not scaled; the one to be denoised is."""
    x = jax.jit(prior.encode)(prior.params, image)
    assert conditioning.latent.shape == x.shape == (8, 8, 4)
    np.testing.assert_allclose(conditioning.latent * 0.18215, x, rtol=1e-5, atol=1e-6)
    resized = jax.image.resize(image, (16, 16, 3), "bilinear")
    encode = jax.jit(prior.networks.image_encoder.apply)
    expected = encode({"params": prior.params["image_encoder"]}, preprocess(resized, 12)[None])
    assert conditioning.embedding.shape == (1, 32) and jnp.abs(expected).max() > 1e-2
    np.testing.assert_allclose(conditioning.embedding, expected, rtol=1e-4, atol=1e-5)
    decoded = jax.jit(prior.decode)(prior.params, x)
    assert decoded.shape == (16, 16, 3) and decoded.min() >= 0 and decoded.max() <= 1


def test_the_denoiser_is_guided_from_zeros(prior, conditioning):
    """eps_0 + w (eps_image - eps_0), where eps_0 knows neither the context nor the latent."""
    x, pose = jax.random.normal(jax.random.key(1), (8, 8, 4)), pose_vector(0.1, 0.5, 0.0)

    @jax.jit
    def denoise(params, pose):
        return prior.denoiser_at_pose(params, conditioning, pose)(3.0)(x, 300)

    @jax.jit
    def unet(params, latent, context):
        inputs = jnp.concatenate([x, latent], -1)[None]
        return prior.networks.unet.apply({"params": params}, inputs, jnp.array([300]), context)[0]

    params = prior.params
    context = project(params["cc_projection"], conditioning.embedding[None], pose[None])
    told = unet(params["unet"], conditioning.latent, context)
    untold = unet(params["unet"], jnp.zeros((8, 8, 4)), jnp.zeros((1, 1, 32)))
    assert jnp.abs(told - untold).max() > 1e-2
    guided = denoise(params, pose)
    np.testing.assert_allclose(guided, untold + 3 * (told - untold), rtol=1e-4, atol=1e-4)
    other = denoise(params, pose_vector(0.1, -0.5, 0.0))
    assert jnp.abs(guided - other).max() > 1e-5


SOURCE, TARGET = View(0.3, 0.2, 1.5), View(0.1, 0.2 + math.pi / 6, 1.8)


@pytest.mark.parametrize(
    ("kind", "last"), [("distance", 0.3), ("elevation", math.pi / 2 - 0.3)], ids=str
)
def test_poses_of_both_kinds(prior, kind, last):
    """The target is lower, so that its polar angle is larger."""
    pose = prior.replace(pose_kind=kind).pose(TARGET, SOURCE)
    np.testing.assert_allclose(pose, [0.2, 0.5, 3**0.5 / 2, last], rtol=1e-5)


def test_a_condition_is_the_image_and_its_elevation(prior, image, conditioning):
    found = prior.condition(Picture(image, 0.2))
    assert isinstance(found, ImageConditioning) and found.elevation.dtype == jnp.float32
    np.testing.assert_allclose(found.elevation, 0.2, rtol=1e-6)
    np.testing.assert_array_equal(found.embedding, conditioning.embedding)
    np.testing.assert_array_equal(found.latent, conditioning.latent)


@pytest.mark.parametrize(
    ("kind", "last"), [("distance", 0.0), ("elevation", np.deg2rad(80))], ids=str
)
def test_the_prior_is_told_the_way_from_the_picture_s_camera(prior, kind, last):
    """To the back and 20 degrees up: polar angle -20, azimuth 180 degrees, distance the same."""

    class Echo(Prior):
        def denoiser_at_pose(self, params, image, pose):
            return pose

    echo = Echo(None, prior.schedule, prior.networks, prior.folder, kind)
    told = ImageConditioning(jnp.ones((1, 32)), jnp.zeros((8, 8, 4)), jnp.deg2rad(10.0))
    pose = echo.denoiser_at(None, told, Viewpoint(jnp.pi, jnp.deg2rad(30.0), jnp.eye(4)))
    np.testing.assert_allclose(pose, [-np.deg2rad(20), 0, -1, last], atol=1e-6)
    assert echo.depends_on_elevation == (kind == "elevation")
    assert echo.tells_apart(told) == "cameras" and echo.samples_per_prediction(told) == 2


def test_of_several_images_the_nearest_tells_of_a_view(prior, image):
    """From 0 and 180 degrees, the second 30 degrees high: a view at 150 is 30 before that."""

    class Echo(Prior):
        def denoiser_at_pose(self, params, image, pose):
            return image, pose

    told = prior.condition([Picture(image, 0.1), Picture(1 - image, 0.5, None, jnp.pi)])
    front, back = prior.condition(Picture(image, 0.1)), prior.condition(Picture(1 - image, 0.5))
    echo = Echo(None, prior.schedule, prior.networks, prior.folder, "distance")
    for at_deg, nearest, turned_deg in ((20.0, front, 20.0), (150.0, back, -30.0)):
        place = Viewpoint(jnp.deg2rad(at_deg), jnp.asarray(0.2), jnp.eye(4))
        seen, pose = jax.jit(lambda place: echo.denoiser_at(None, told, place))(place)
        np.testing.assert_array_equal(seen.latent, nearest.latent)
        np.testing.assert_array_equal(seen.embedding, nearest.embedding)
        turned = np.deg2rad(turned_deg)
        expected = [nearest.elevation - 0.2, np.sin(turned), np.cos(turned), 0]
        np.testing.assert_allclose(pose, expected, atol=1e-6)
    assert prior.takes_pictures


def test_steps_need_no_image_encoder(prior):
    assert prior.for_steps().params.keys() == {"unet", "vae", "cc_projection"}


def test_its_training_pictures_field_of_view(prior, zero123_folder, zero123_file, tmp_path, caplog):
    """It is read from the folder, wherever that lies; what is assumed is said."""
    assert prior.fov_deg == 49.1
    caplog.clear()
    assert load_prior(zero123_file).fov_deg == 49.1
    (line,) = caplog.messages
    assert line.startswith(f"{zero123_file} does not say the field of view of its pictures: taken")
    assert line.endswith("49.1 degrees; --camera.fov-deg says otherwise")
    caplog.clear()
    assert fov_deg_of("toybox-1to3") == 40.0 and fov_deg_of("owner/name.safetensors") == 49.1
    folder = Path(shutil.copytree(zero123_folder, tmp_path / "copy"))
    index = folder / "model_index.json"
    assert not caplog.messages and load_prior(folder).fov_deg == 49.1
    (line,) = caplog.messages
    assert line.startswith(f"{folder} does not say the field of view of its pictures: taken as ")
    assert '49.1 degrees; "fov_deg" in its model_index.json, or --camera.fov-deg, says' in line
    caplog.clear()
    shutil.copy(EMBEDDED["toybox-1to3"] / index.name, index)
    index.write_text(json.dumps(json.loads(index.read_text()) | {"shared": {}}))
    assert load_prior(folder).fov_deg == fov_deg_of(folder) == 40.0 and not caplog.messages
    for angle in (0, 180, None, "40", True, float("nan"), [40]):
        index.write_text(json.dumps({"pose": "distance", "fov_deg": angle}))
        with pytest.raises(
            ValueError, match=r"model_index\.json: fov_deg has to lie inside 0\.\.180"
        ):
            load_prior(folder)


@pytest.mark.parametrize("name", ["stable-zero123", "zero123-xl", "0f1e2d3c"])
def test_the_pose_is_asked_for_and_not_guessed_from_a_name(zero123_folder, tmp_path, name):
    folder = Path(shutil.copytree(zero123_folder, tmp_path / name))
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(ValueError) as error:
        load_prior(folder)
    assert str(error.value) == (
        f"{folder}: nothing in its files tells Zero-1-to-3 from Stable Zero123; say --pose "
        "distance for Zero-1-to-3 and Zero123-XL, --pose elevation for Stable Zero123 "
        '(load_prior(..., pose="elevation") in Python)'
    )
    assert load_prior(folder, pose="elevation").pose_kind == "elevation"
    (folder / "model_index.json").write_text('{"pose": "elevation"}')
    assert load(folder).pose_kind == "elevation"
    with pytest.raises(ValueError, match=r"model_index\.json says that pose is elevation, not"):
        load_prior(folder, pose="distance")


def test_a_prior_of_prompts_takes_no_pose(tiny_sd):
    with pytest.raises(ValueError, match="takes a prompt and not a picture: leave --pose out"):
        load_prior(tiny_sd, pose="distance")
