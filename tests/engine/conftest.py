"""The small task, and priors of full size whose weights have shapes and no content."""

import jax
import jax.numpy as jnp
import pytest
from flat_colours import compiled_quickly, prior, recipe, task  # noqa: F401

from dsd_jax.engine import memory
from dsd_jax.engine.task import Task
from dsd_jax.models import attention
from dsd_jax.models.architectures import ARCHITECTURES
from dsd_jax.models.networks import build, param_shapes
from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.priors import EMBEDDED
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.priors.view_words import Text
from dsd_jax.recipe.recipe import Recipe, changed
from dsd_jax.schedule import NoiseSchedule


@pytest.fixture(scope="session")
def abstract():
    """networks -> a prior without text encoder whose parameters are shapes."""

    def of(networks) -> Prior:
        dtype = networks.unet.dtype
        params = {
            name: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), tree)
            for name, tree in param_shapes(networks).items()
            if name in ("unet", "vae")
        }
        schedule = NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)
        return Prior(params, schedule, networks, EMBEDDED["toybox"])

    return of


@pytest.fixture(scope="session")
def sd21(abstract):
    return abstract(build(*ARCHITECTURES["sd21-base"], jnp.bfloat16))


@pytest.fixture(scope="session")
def told() -> Text:
    """A prompt, to be blended between views."""
    return Text(jnp.zeros((77, 1024)), jnp.zeros((4, 77, 1024)), jnp.zeros((77, 1024)))


@pytest.fixture
def big(sd21, told, monkeypatch) -> Task:
    """SD 2.1-base in bfloat16 as on a GPU, where a kernel of cuDNN computes small heads."""

    def implementation(dtype, head_features):
        return "cudnn" if head_features <= 128 else "xla"

    monkeypatch.setattr(attention, "implementation", implementation)
    monkeypatch.setattr(memory, "costs", lambda: memory.ON_ACCELERATOR)
    return Task(sd21, changed(Recipe(), views=1), "a house", told)
