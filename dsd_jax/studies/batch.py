"""Objects for several prompts or pictures at once, as studies want them: pictures and numbers.

Letters: n seeds, v views, h w pixels, k channels.
"""

import dataclasses
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from dsd_jax import ode
from dsd_jax.distillation.common import Method
from dsd_jax.engine import loop, memory
from dsd_jax.engine.plan import Task, initial_states, make_blocks, make_task
from dsd_jax.engine.seed_views import levels_in_use, make_camerawork, shoot
from dsd_jax.export.pictures import to_uint8
from dsd_jax.metrics import floaters, judge
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.state import State, seed_noise
from dsd_jax.recipe.viewpoints import Shared, Viewpoint, camera_at, condition, embed_prompt
from dsd_jax.rendering.scene import Scene


class Objects(NamedTuple):
    """What was made for one prompt or picture.

    Attributes:
        views: on grey, from the judge's azimuths and elevation, at its size; their opacity is a
            fourth channel where it was asked for.
        floaters: `metrics.floaters.floating_share` of each seed.
        seconds: those of the whole batch, compiling included, over its prompts or pictures.
    """

    views: UInt8[np.ndarray, "n 8 h w k"]
    floaters: Float[np.ndarray, "n"]
    seconds: float


def make_objects(
    prior: Prior, prompts: list[str], method: Method, settings: Settings, seeds: list[int]
) -> Iterator[Objects]:
    """Optimise every seed of every prompt, as `make_all` does."""
    return make_all([make_task(prior, prompt, method, settings) for prompt in prompts], seeds)


def make_all(tasks: list[Task], seeds: list[int], opacity: bool = False) -> Iterator[Objects]:
    """Optimise every seed of every task; yields what was made of one task after another.

    As many tasks run together as memory has room for: on a GPU 40 objects take little longer
    than 8.

    Args:
        tasks: that differ in their prompts alone, or in their pictures alone.
        opacity: whether views get it as a fourth channel.
    """
    prior, scene, method, settings, _ = tasks[0]
    needs = memory.needs(prior, scene, settings, method)
    fit = (memory.bytes_available() - needs.kernels) // needs.per_seed * jax.local_device_count()
    batches = -(-len(tasks) // max(1, fit // len(seeds)))
    length = -(-len(tasks) // batches)
    for i in range(0, len(tasks), length):
        yield from _make_together(tasks[i : i + length], seeds, opacity)


def _make_together(tasks: list[Task], seeds: list[int], opacity: bool) -> list[Objects]:
    """The objects of tasks that differ in their texts alone, in one batch."""
    began, n, task, settings = time.monotonic(), len(seeds), tasks[0], tasks[0].settings
    mesh = loop.seed_mesh(n * len(tasks))
    text = jax.tree.map(lambda *rows: jnp.repeat(jnp.stack(rows), n, 0), *(t.text for t in tasks))
    states = initial_states(task, seeds * len(tasks))
    states, shared = loop.place(mesh, states, Shared(task.prior.params, text))
    blocks = make_blocks(task, mesh, text_each=True)
    states = loop.run(blocks, states, shared, lambda progress: None)
    seconds = (time.monotonic() - began) / len(tasks)
    camerawork = make_camerawork(task.scene, judge.SIZE, settings.final_samples, mesh, opacity)
    views = shoot(camerawork, states, judge.AZIMUTHS_DEG, judge.ELEVATION_DEG, settings)
    loose = _floating(task.scene, states, settings)
    own = (slice(i * n, (i + 1) * n) for i in range(len(tasks)))
    return [Objects(views[rows], loose[rows], seconds) for rows in own]


def _floating(scene: Scene, states: State, settings: Settings) -> Float[np.ndarray, "n"]:
    """Share of each seed's opacity outside its largest component."""
    levels = levels_in_use(states, settings)

    @jax.jit
    def grids(params):
        return jax.lax.map(lambda own: floaters.opacity_grid(scene.field_fn(own, levels)), params)

    return np.array([floaters.floating_share(grid) for grid in np.asarray(grids(states.params))])


def sample_views(
    prior: Prior,
    prompt: str,
    settings: Settings,
    seeds: list[int],
    steps: int,
    azimuths_deg: tuple[float, ...],
    elevation_deg: float,
    size: int = judge.SIZE,
) -> UInt8[np.ndarray, "n v h w 3"]:
    """The prior's own pictures of each seed from several sides, by DDIM over `steps` grid points.

    They start from the noise that the seed has in 3D. Where the prior knows cameras, and the run
    denoises as many views together as there are azimuths, these are denoised together too.
    """
    azimuth = jnp.deg2rad(jnp.asarray(azimuths_deg))
    places = Viewpoint(azimuth, jnp.full_like(azimuth, np.deg2rad(elevation_deg)))
    text, grid = embed_prompt(prior, prompt, settings), ode.linear_grid(steps)
    together = prior.has_camera and settings.views == len(azimuths_deg)
    settings = settings if together else dataclasses.replace(settings, views=1)
    noises = jax.vmap(lambda seed: seed_noise(seed, prior.latent_shape, settings))
    noise = noises(jnp.asarray(seeds, jnp.uint32))

    def end(shared, noise, place):
        camera = camera_at(place, settings)
        denoiser_at = condition(prior, shared.prior, shared.text, place, camera, settings)
        denoiser = denoiser_at(settings.guidance_scale)
        return ode.integrate(denoiser, prior.schedule, noise, grid, grid[-1]).xhat_t

    @jax.jit
    def sample(shared, noise):
        if together:
            latents = end(shared, noise, places)
        else:
            latents = jax.lax.map(lambda place: end(shared, noise, place), places)
        images = jax.lax.map(lambda x: prior.decode(shared.prior, x), latents)
        return jax.image.resize(images, (len(azimuths_deg), size, size, 3), "bilinear")

    return np.stack([to_uint8(sample(Shared(prior.params, text), own)) for own in noise])
