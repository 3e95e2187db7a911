"""Flags of experiments/text3d.py that concern the device: --precision and --max-memory-gb."""

import jax
import jax.numpy as jnp
import pytest
from programs import SMALL, load_script

from dsd_jax.recipe.state import init_state
from dsd_jax.recipe.step import Recipe, Shared, make_step

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def text3d():
    return load_script("text3d")


def prepared(text3d, folder, out, *flags):
    command = ["--prompt", "a red house", "--prior", str(folder), "--out", str(out), *SMALL, *flags]
    return text3d.prepare(text3d.parse(command))


def types(tree) -> set[str]:
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


def test_a_cpu_computes_in_float32_unless_told_otherwise(text3d, tiny_prior_folder, tmp_path):
    default = prepared(text3d, tiny_prior_folder, tmp_path)
    half = prepared(text3d, tiny_prior_folder, tmp_path, "--precision", "bfloat16")
    for job, name in ((default, "float32"), (half, "bfloat16")):
        prior = job.task.prior
        assert job.config["precision"] == name
        assert types(prior.params) == {name}
        assert set(prior.params) == {"unet", "vae"}  # the text encoder's work is done
        assert {prior.networks.unet.dtype.name, prior.networks.vae.dtype.name} == {name}
    assert default.folder != half.folder


def test_only_the_networks_are_bfloat16(text3d, tiny_prior_folder, tmp_path):
    job = prepared(text3d, tiny_prior_folder, tmp_path, "--precision", "bfloat16")
    task, params = job.task, job.task.prior.params
    prior, text = task.prior, task.text
    assert types(prior.schedule) == types(text) == {"float32"}
    x = jnp.zeros(prior.latent_shape)
    denoiser = prior.denoiser_at(params, text.plain, text.uncond, jnp.zeros(16))(7.5)
    assert jax.eval_shape(denoiser, x, 3).dtype == jnp.float32

    def gradient(image, grad):
        latent, pull_back = jax.vjp(lambda image: prior.encode(params, image), image)
        return latent, pull_back(grad)[0]

    assert types(jax.eval_shape(gradient, jnp.zeros((8, 8, 3)), x)) == {"float32"}
    step = make_step(Recipe(task.scene, prior, task.method, task.settings))
    state = jax.eval_shape(lambda: init_state(0, prior.latent_shape, task.scene, task.settings))
    after, metrics = jax.eval_shape(step, state, Shared(params, text))
    assert types((after.params, after.seed_noise, metrics)) == {"float32"}
    assert types(after) <= {"float32", "int32", "uint32", "bool"}


def test_too_little_memory_is_said_in_one_line(text3d, tiny_prior_folder, tmp_path, capsys):
    command = ["--prompt", "a red house", "--prior", str(tiny_prior_folder), *SMALL]
    out = tmp_path / "out"
    assert text3d.main([*command, "--out", str(out), "--max-memory-gb", "1e-6"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: one seed needs about 0.0") and "but --max-memory-gb is" in line
    assert not out.exists()
