"""Objects for several prompts or pictures at once, as studies want them: pictures and numbers.

Letters: n seeds, v views, h w pixels, k channels.
"""

import sys
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from dsd_jax import ode
from dsd_jax.engine import loop, memory
from dsd_jax.engine.device_mesh import place, seed_mesh
from dsd_jax.engine.generate import initial_states, make_blocks
from dsd_jax.engine.lost import GONE, diverged, finite, gone
from dsd_jax.engine.results import mesh_cameras
from dsd_jax.engine.seed_views import seed_renderer, shoot, stage_of
from dsd_jax.engine.task import Task, make_task
from dsd_jax.export.pictures import to_uint8
from dsd_jax.export.scenes import SavedScene
from dsd_jax.files import shortened
from dsd_jax.metrics import floaters, judge
from dsd_jax.priors import Prior
from dsd_jax.recipe.recipe import Recipe, changed
from dsd_jax.recipe.state import State, noise_of
from dsd_jax.recipe.viewpoints import guided, viewpoint_at
from dsd_jax.studies import meshes


class Made(NamedTuple):
    """What was made for one prompt or picture.

    Attributes:
        views: on grey, from the judge's azimuths and elevation, at its size; their opacity is a
            fourth channel where it was asked for.
        floaters: `metrics.floaters.floating_share` of each seed.
        seconds: those of the whole batch, compiling included, over its prompts or pictures.
        lost: which seeds diverged, or have nothing left to be seen.
        meshes: what was asked to be kept of them, see `meshes`.
    """

    views: UInt8[np.ndarray, "n 8 h w k"]
    floaters: Float[np.ndarray, "n"]
    seconds: float
    lost: Bool[np.ndarray, "n"]
    meshes: Mapping[str, np.ndarray]

    def arrays(self) -> dict[str, Any]:
        """What a result keeps."""
        own = self._asdict()
        return own | own.pop("meshes")


def make_objects(
    prior: Prior, prompts: list[str], recipe: Recipe, seeds: list[int], mesh: bool = False
) -> Iterator[Made]:
    """Optimise every seed of every prompt, as `make_all` does."""
    tasks = [make_task(prior, prompt, recipe) for prompt in prompts]
    return make_all(tasks, seeds, look=meshes.looked_at if mesh else None)


def make_all(
    tasks: list[Task], seeds: list[int], opacity: bool = False, look: meshes.Look | None = None
) -> Iterator[Made]:
    """Optimise every seed of every task; yields what was made of one task after another.

    As many tasks run together as memory has room for: on a GPU 40 objects take little longer
    than 8.

    Args:
        tasks: that differ in their prompts alone, or in their pictures alone.
        opacity: whether views get it as a fourth channel.
        look: what to keep of their meshes.
    """
    task, pictures = tasks[0], tasks[0].shared.pictures
    needs = memory.needs(task.prior, task.recipe, task.condition, pictures)
    devices = jax.local_device_count()
    room = memory.on_each(memory.bytes_available(), devices, task.recipe) - needs.kernels
    fit = room // needs.per_seed * devices
    batches = -(-len(tasks) // max(1, fit // len(seeds)))
    length = -(-len(tasks) // batches)
    for i in range(0, len(tasks), length):
        yield from _make_together(tasks[i : i + length], seeds, opacity, look)


def _make_together(
    tasks: list[Task], seeds: list[int], opacity: bool, look: meshes.Look | None
) -> list[Made]:
    """The objects of tasks that differ in what the prior is told alone, in one batch."""
    began, n, task, recipe = time.monotonic(), len(seeds), tasks[0], tasks[0].recipe
    devices = seed_mesh(n * len(tasks))
    told = [one.shared._replace(prior=None) for one in tasks]
    told = jax.tree.map(lambda *rows: jnp.repeat(jnp.stack(rows), n, 0), *told)
    states = initial_states(task, seeds * len(tasks))
    states, shared = place(devices, states, told._replace(prior=task.prior.params))
    blocks = make_blocks(task, devices, condition_each=True)
    lost = np.zeros(n * len(tasks), bool)

    def watch(progress: loop.Progress) -> None:
        broken = ~finite(progress.states, progress.metrics["loss"])
        for i in np.flatnonzero(broken & ~lost):
            say_lost(tasks[i // n].told, seeds[i % n], diverged(progress.done))
        lost[broken] = True

    states = loop.run(blocks, states, shared, watch, lambda: int(lost.all()))
    seconds = (time.monotonic() - began) / len(tasks)
    scene, samples = recipe.scene_of(True), recipe.results.final_samples
    renderer = seed_renderer(scene, judge.SIZE, samples, devices, opacity)
    views = shoot(renderer, states, judge.AZIMUTHS_DEG, judge.ELEVATION_DEG, recipe)
    for i in np.flatnonzero(gone(views[..., :3]) & ~lost):
        say_lost(tasks[i // n].told, seeds[i % n], GONE)
        lost[i] = True
    loose = _floating(states, recipe)
    looked = look(_scenes(states, recipe, lost), mesh_cameras(recipe)) if look else {}
    return [
        Made(views[own], loose[own], seconds, lost[own], {k: v[own] for k, v in looked.items()})
        for own in (slice(i * n, (i + 1) * n) for i in range(len(tasks)))
    ]


def say_lost(told: str, seed: int, why: str) -> None:
    """Name a seed of a prompt or picture that comes to nothing."""
    print(f"{shortened(told, 80)}: seed {seed}: {why}; no score counts it", file=sys.stderr)


class Naming:
    """Names seeds of a prompt that are frozen, ten times in so many steps, each seed once.

    Attributes:
        named: those that were.
    """

    def __init__(self, told: str, seeds: Sequence[int], steps: int):
        self.named: set[int] = set()
        self._told, self._seeds, self._steps = told, seeds, steps

    def is_time(self, step: int) -> bool:
        """Whether to look after so many steps."""
        return step % max(1, self._steps // 10) == 0 or step == self._steps

    def __call__(self, step: int, frozen: Any) -> None:
        """Look which seeds are frozen, [n], if it is time; an `images2d.OnStep`."""
        if self.is_time(step):
            self.say(np.asarray(frozen), diverged(step))

    def say(self, lost: Bool[np.ndarray, "n"], why: str) -> None:
        """Name those that are lost and were not named yet."""
        for seed, one in zip(self._seeds, lost.tolist(), strict=True):
            if one and seed not in self.named:
                self.named.add(seed)
                say_lost(self._told, seed, why)


def is_kept(path: Path) -> bool:
    """Whether an .npz file of results is there and whole; where it is damaged, says so."""
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is None:
                return True
    except FileNotFoundError:
        return False
    except (OSError, zipfile.BadZipFile, zlib.error):
        pass
    print(f"{path} is damaged; it is made again", file=sys.stderr)
    return False


def lost_of(arrays: Mapping[str, np.ndarray]) -> Bool[np.ndarray, "n"]:
    """Which seeds of a kept result were lost."""
    return arrays["lost"] if "lost" in arrays else np.zeros(len(arrays["views"]), bool)


def _floating(states: State, recipe: Recipe) -> Float[np.ndarray, "n"]:
    """Share of each seed's opacity outside its largest component."""
    scene, stage = recipe.scene, stage_of(states, recipe)

    @jax.jit
    def grids(params):
        return jax.lax.map(lambda own: floaters.opacity_grid(scene.field_fn(own, stage)), params)

    return np.array([floaters.floating_share(grid) for grid in np.asarray(grids(states.params))])


def _scenes(states: State, recipe: Recipe, lost: Bool[np.ndarray, "n"]) -> list[SavedScene | None]:
    """Each seed's scene, None of a lost one."""
    stage, params = stage_of(states, recipe), jax.device_get(states.params)
    scenes: list[SavedScene | None] = [None] * len(lost)
    for i in np.flatnonzero(~lost):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        scenes[i] = SavedScene(recipe.scene, own, stage)
    return scenes


def sample_views(
    prior: Prior,
    prompt: str,
    recipe: Recipe,
    seeds: list[int],
    steps: int,
    azimuths_deg: tuple[float, ...],
    elevation_deg: float,
    size: int = judge.SIZE,
) -> UInt8[np.ndarray, "n v h w 3"]:
    """The prior's own pictures of each seed from several sides, by DDIM over `steps` grid points.

    They start from the noise that the seed has in 3D. Where the prior denoises views together, and
    the recipe has as many as there are azimuths, these are denoised together too.
    """
    azimuth = jnp.deg2rad(jnp.asarray(azimuths_deg))
    angles = azimuth, jnp.full_like(azimuth, np.deg2rad(elevation_deg))
    task = make_task(prior, prompt, recipe)
    prior, schedule = task.prior, task.prior.schedule
    grid = ode.linear_grid(steps, schedule.last)
    together = prior.denoises_together and 1 < recipe.camera.views == len(azimuths_deg)
    recipe = recipe if together else changed(recipe, views=1)
    noises = jax.vmap(lambda seed: noise_of(seed, prior.latent_shape, recipe))
    noise = noises(jnp.asarray(seeds, jnp.uint32))

    def end(shared, noise, angles):
        azimuth, elevation = angles
        viewpoint, _ = viewpoint_at(azimuth, elevation, recipe.camera)
        told, method = (shared.prior, shared.condition, viewpoint), recipe.method
        denoiser = guided(prior, *told, method)(method.guidance_scale)
        return ode.integrate(denoiser, schedule, noise, grid, grid[-1]).xhat_t

    @jax.jit
    def sample(shared, noise):
        if together:
            latents = end(shared, noise, angles)
        else:
            latents = jax.lax.map(lambda own: end(shared, noise, own), angles)
        images = jax.lax.map(lambda x: prior.decode(shared.prior, x)[..., :3], latents)
        return jax.image.resize(images, (len(azimuths_deg), size, size, 3), "bilinear")

    return np.stack([to_uint8(sample(task.shared, own)) for own in noise])
