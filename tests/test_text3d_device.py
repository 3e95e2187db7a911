"""Flags of text3d.py that concern the device: --precision and --max-memory-gb."""

import jax
import jax.numpy as jnp
import pytest
from programs import arguments, load_script

from dsd_jax.engine.generate import initial_states
from dsd_jax.priors import Viewpoint
from dsd_jax.recipe.step import make_step

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def text3d():
    return load_script("text3d")


def prepared(text3d, folder, out, *flags):
    return text3d.prepare(*text3d.parse(arguments(folder, "--out", out, *flags)))


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
    flags = ["--precision", "bfloat16", "--method", "sds"]
    task = prepared(text3d, tiny_prior_folder, tmp_path, *flags).task
    prior, params = task.prior, task.prior.params
    assert types(prior.schedule) == types(task.condition) == {"float32"}
    x = jnp.zeros(prior.latent_shape)
    viewpoint = Viewpoint(jnp.zeros(()), jnp.zeros(()), jnp.eye(4).at[2, 3].set(2.0))
    denoiser = prior.denoiser_at(params, task.condition, viewpoint)(7.5)
    assert jax.eval_shape(denoiser, x, 3).dtype == jnp.float32

    def gradient(image, grad):
        latent, pull_back = jax.vjp(lambda image: prior.encode(params, image), image)
        return latent, pull_back(grad)[0]

    assert types(jax.eval_shape(gradient, jnp.zeros((8, 8, 3)), x)) == {"float32"}
    states = jax.eval_shape(lambda: initial_states(task, [0]))
    step = jax.vmap(make_step(prior, task.recipe), in_axes=(0, None))
    after, metrics = jax.eval_shape(step, states, task.shared)
    assert types((after.params, after.seed_noise, metrics)) == {"float32"}
    assert types(after) <= {"float32", "int32", "uint32", "bool"}


def test_too_little_memory_is_said_in_one_line(text3d, tiny_prior_folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = arguments(tiny_prior_folder, "--out", out, "--max-memory-gb", "1e-6")
    assert text3d.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: one seed needs about 1.") and "but --max-memory-gb is" in line
    assert not out.exists()
