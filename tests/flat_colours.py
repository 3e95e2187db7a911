"""A prior that is known exactly, small enough to optimise against in a test."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from dsd_jax.distillation import METHODS
from dsd_jax.engine.plan import Task
from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.priors.gaussian import GaussianMixture
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.state import make_scene
from dsd_jax.recipe.viewpoints import Text
from dsd_jax.schedule import NoiseSchedule

SIZE = 4


@dataclasses.dataclass(frozen=True)
class FlatColours:
    """Stands in for `Prior`: images of the prompt are red, others blue, flat but for a variance.

    Its weights are None or, adapted, what is added to both colours.
    """

    params: object = None
    has_camera: bool = False
    image_size: int = SIZE
    latent_shape: tuple = (SIZE, SIZE, 3)
    variance: float = 1e-3

    @property
    def schedule(self):
        return NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)

    def encode(self, params, image):
        return 2 * jax.image.resize(image, self.latent_shape, "linear") - 1

    def decode(self, params, x):
        return (x + 1) / 2

    def denoiser_at(self, params, text, uncond, camera=None, num_views=1):
        colours = jnp.array([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]])[:, None, None]
        mean = jnp.broadcast_to(colours, (2, *self.latent_shape))
        mixture = GaussianMixture(jnp.zeros(2), mean, jnp.full_like(mean, self.variance))
        mixture = mixture if params is None else mixture.adapt(params)
        return mixture.denoiser_at(self.schedule, text[0])

    def init_adapter(self, key, params, rank):
        return jnp.zeros(3)

    def adapt(self, params, weights):
        return weights

    def perp_neg_at(self, params, view_prompts, uncond):
        """Its pictures look alike from all sides, so that nothing is left to push away."""
        return self.denoiser_at(params, view_prompts.text, uncond)


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(quick_compilation):
    """All tests of this folder, but where a module has a `quick_compilation` of its own."""


@pytest.fixture(scope="session")
def settings():
    """Small, and given in full where tuning the presets could change what a test sees."""
    return Settings(
        density="softplus",
        density_floor=0.0,
        colour_std=0.0,
        blob_scale=10.0,
        steps=40, views=1, resolution=8, late_resolution=8, samples=8, levels=2, start_levels=2,
        log2_entries=8, width=8, occupancy_resolution=8, occupancy_every=4, shading_from=1.0,
        guidance_scale=1.0, t_min=0.3, final_rate=1.0, sparsity=0.1, opaque=0.1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def task(settings) -> Task:
    """Make a red thing, by DSD."""
    red = jnp.array([0.0, -1e9])  # finite: prompts of views are blended
    text = Text(red[None], jnp.stack([red[None]] * 4), red[None], nfsd=red[None, ::-1])
    return Task(FlatColours(), make_scene(settings), METHODS["dsd"], settings, text)
