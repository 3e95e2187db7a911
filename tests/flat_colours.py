"""A prior of one's own that is known exactly, small enough to optimise against in a test."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.engine.generate import Saving, Watch, load_states, make_blocks, optimise
from dsd_jax.engine.plan import Devices, make_plan
from dsd_jax.engine.task import Task, make_task
from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.priors.gaussian import GaussianMixture
from dsd_jax.recipe.recipe import Recipe, changed
from dsd_jax.schedule import NoiseSchedule

COLOURS = np.array([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]])  # red, blue


@dataclass(frozen=True)
class FlatColours:
    """Pictures of something red are red, others blue, flat but for a variance.

    The weights are what is added to both colours.
    """

    params: jax.Array
    latent_shape: tuple[int, int, int] = (4, 4, 3)
    image_size: int = 4
    variance: float = 1e-3
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)

    def encode(self, params, image):
        return 2 * jax.image.resize(image, self.latent_shape, "linear") - 1

    def decode(self, params, x):
        return (x + 1) / 2

    def condition(self, told, *, negative_prompt="", view_prompts="perp-neg"):
        return jnp.array([0.0, -jnp.inf] if "red" in told else [-jnp.inf, 0.0])

    def denoiser_at(self, params, condition, viewpoints):
        mean = jnp.broadcast_to((COLOURS + params)[:, None, None], (2, *self.latent_shape))
        mixture = GaussianMixture(jnp.zeros(2), mean, jnp.full_like(mean, self.variance))
        return mixture.denoiser_at(self.schedule, condition)

    def tells_apart(self, condition):
        return "nothing"


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(quick_compilation):
    """All tests of this folder, but where a module has a `quick_compilation` of its own."""


@pytest.fixture(scope="session")
def prior() -> FlatColours:
    return FlatColours(jnp.zeros(3))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Small, and given in full where tuning the presets could change what a test sees."""
    return changed(
        Recipe(),
        steps=40, views=1, resolution=8, late_resolution=8, samples=8, occupancy_resolution=8,
        occupancy_every=4, shading_from=1.0, guidance_scale=1.0, t_min=0.3, final_rate=1.0,
        sparsity=0.1, opaque=0.1, levels=2, start_levels=2, log2_entries=8, width=8,
        density="softplus", density_floor=0.0, colour_std=0.0, blob_scale=10.0, rounds=0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def task(prior, recipe) -> Task:
    """Make a red thing, by DSD."""
    return make_task(prior, "a red thing", recipe)


class Machine:
    """Runs a task's seeds with one compiled step for each size of chunk."""

    def __init__(self, task: Task):
        self.task, self.compiled = task, {}

    def blocks(self, device_mesh):
        key = device_mesh.size, tuple(device_mesh.shape.items())
        return self.compiled.setdefault(key, make_blocks(self.task, device_mesh))

    def run(self, seeds, folder, stop=10**6, devices=Devices()):
        """The states [c, ...] of one chunk, from the folder's last checkpoint to step `stop`."""
        saved, done = load_states(self.task, folder, seeds), [0]
        watch = Watch(
            on_block=lambda chunk, progress: done.append(progress.done),
            should_stop=lambda: int(done[-1] >= stop),
        )
        plan = make_plan(self.task, seeds, devices, saved)
        saving = Saving(folder, saved=saved)
        ((_, states),) = optimise(self.task, plan, watch, saving, self.blocks).chunks
        return states
