"""Text to pictures: the same methods on a free image per seed, without a renderer.

Letters: n seeds, h w c a latent, H W pixels, k pictures of a strip. What is optimised is, by space,
    latents   x itself, [h, w, c]
    pixels    an image in logits, [H, W, 3], whose latent is x
    network   a small network from coordinates to colours, whose image's latent is x
and how, by function,
    follow    DSD*: latents along the seed's ODE itself
    descend   a method's gradient on latents, by plain steps of size one
    optimise  a method's gradient, by Adam as in 3D
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, UInt
from scipy.special import logit

from dsd_jax import ode
from dsd_jax.distillation import dsd
from dsd_jax.distillation.common import Method, taken
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.recipe import annealing, method_step
from dsd_jax.recipe.presets import Settings, resolved
from dsd_jax.recipe.state import method_key, seed_noise, step_key
from dsd_jax.recipe.viewpoints import Shared, Viewpoint, camera_at, condition, embed_prompt
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.scene import GREY

SPACES = ("latents", "pixels", "network")
STRIP = 8


class Task(NamedTuple):
    """One prompt to be made into pictures.

    Attributes:
        method: a value of `distillation.METHODS`.
        settings: those of the method and of t; `grid_rate` is Adam's rate, `views` is 1.
        shared: weights and prompt.
        azimuth, elevation: radians, what a prior with a camera input is told.
        space: of `SPACES`.
    """

    prior: Prior
    method: Method
    settings: Settings
    shared: Shared
    azimuth: float
    elevation: float
    space: str


class Result(NamedTuple):
    """Pictures in [0, 1]: the last ones [n, H, W, 3], and on the way there [n, k, H, W, 3]."""

    images: Float[Array, "n H W 3"]
    strip: Float[Array, "n k H W 3"]


class Canvas(NamedTuple):
    """One seed's optimisation; `cache` is for `distil`, which finds none here.

    Attributes:
        params: what is optimised.
        opt_state: the optimiser's.
        method: of the network that the method trains.
    """

    seed: UInt[Array, ""]
    step: Int[Array, ""]
    params: Any
    opt_state: Any
    method: Any
    cache: None = None


class CoordinateNetwork(nn.Module):
    """Points [n, 2] in [-1, 1] -> logits of colours [n, 3], by sines of random waves and an MLP.

    Fourier features (Tancik et al. 2020, arXiv 2006.10739).
    """

    waves: int = 64
    scale: float = 6.0
    width: int = 64

    @nn.compact
    def __call__(self, points: Float[Array, "n 2"]) -> Float[Array, "n 3"]:
        directions = jax.random.normal(jax.random.key(0), (2, self.waves)) * self.scale
        phase = points @ directions
        hidden = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1)
        for _ in range(2):
            hidden = nn.relu(nn.Dense(self.width)(hidden))
        return nn.Dense(3, bias_init=nn.initializers.constant(float(logit(GREY))))(hidden)


def make_task(
    prior: Prior, prompt: str, method: Method, settings: Settings, azimuth, elevation, space: str
) -> Task:
    """Everything that all seeds of a prompt share; raises ValueError for another space."""
    if space not in SPACES:
        raise ValueError(f"--space {space!r} is not one of {', '.join(SPACES)}")
    settings = resolved(settings, method)
    shared = Shared(prior.params, embed_prompt(prior, prompt, settings))
    return Task(prior, method, settings, shared, azimuth, elevation, space)


def noises(task: Task, seeds) -> Float[Array, "n h w c"]:
    """The noise of each seed; the same that it has in 3D."""
    draw = partial(seed_noise, latent_shape=task.prior.latent_shape, settings=task.settings)
    return jax.vmap(draw)(jnp.asarray(seeds, jnp.uint32))


def denoiser_at(task: Task, shared: Shared):
    """Guidance scale -> denoiser of the task's view."""
    return condition(task.prior, *shared, *_place(task), task.settings)


def _place(task: Task) -> tuple[Viewpoint, Camera]:
    """Where the task's view is taken from."""
    viewpoint = Viewpoint(jnp.asarray(task.azimuth), jnp.asarray(task.elevation))
    return viewpoint, camera_at(viewpoint, task.settings)


def ddim(task: Task, seeds, steps: int) -> Float[Array, "n H W 3"]:
    """The prior's own picture of each seed, by DDIM over `steps` grid points."""

    @jax.jit
    def sample(shared, noise):
        denoiser = denoiser_at(task, shared)(task.settings.guidance_scale)
        grid = ode.linear_grid(steps)
        end = ode.integrate(denoiser, task.prior.schedule, noise, grid, grid[-1])
        return task.prior.decode(shared.prior, end.xhat_t)

    return jax.lax.map(partial(sample, task.shared), noises(task, seeds))


def follow(task: Task, seeds, on_step=lambda step: None) -> Result:
    """DSD* on latents: plain gradient steps of size one along each seed's ODE.

    See `dsd.exact_gradient`. With as many steps as DDIM has grid points this is DDIM.
    """
    settings, schedule = task.settings, task.prior.schedule
    grid = ode.linear_grid(settings.steps)
    first = jax.vmap(lambda noise: ode.start(schedule, noise, grid[0]))(noises(task, seeds))

    @jax.jit
    def step(shared, x, eps, t):
        def one(x, eps):
            denoiser = denoiser_at(task, shared)(settings.guidance_scale)
            grad, eps = dsd.exact_gradient(denoiser, schedule, x, eps, t)
            return x - grad, eps

        return jax.vmap(one)(x, eps)

    x, eps, kept = first.xhat_t, first.eps_t, []
    for i, t in enumerate(grid):
        x, eps = step(task.shared, x, eps, t)
        if i in _strip(settings.steps):
            kept.append(x)
        on_step(i + 1)
    return _pictures(task, jnp.stack(kept, 1))


def optimise(task: Task, seeds, on_step=lambda step: None) -> Result:
    """Adam on the method's gradient, from one start for all seeds; t falls as in 3D.

    Latents start at 0, their mean; images start in the background's grey.
    """
    settings, schedule = task.settings, task.prior.schedule
    start, latent = _variable(task)
    adam = optax.adam(settings.grid_rate, settings.beta1, settings.beta2)

    def now(step):
        return annealing.run_timestep(step, settings, schedule), {}

    return _run(task, seeds, lambda shared, noise: start, latent, adam, now, on_step)


def descend(task: Task, seeds, on_step=lambda step: None) -> Result:
    """Latents by plain steps of size one down the method's gradient, t falling evenly from T to 0.

    DSD in the form that 3D uses follows its seed's ODE this way, since x begins on it, at the
    seed's one-step prediction at T; t' is the t of the step before, T at first; the weight is s_t;
    and w' is w unless the settings say otherwise. If the simulated ODE has the same grid,
    `ode_points` = `steps` + 1, and `eta` is 0, this is DDIM over it, with either `anchor`. Beside a
    coarser one, as 3D has it, x drifts off, and with more steps further: nothing pulls it back.

    Raises ValueError for a space other than latents.
    """
    if task.space != "latents":
        raise ValueError(f"plain descent moves latents alone, not --space {task.space}")
    prime = task.settings.guidance_scale_prime
    prime = task.settings.guidance_scale if prime is None else prime
    settings = dataclasses.replace(task.settings, weighting="one-step", guidance_scale_prime=prime)
    grid, schedule = jnp.asarray(ode.linear_grid(settings.steps + 1)), task.prior.schedule

    def start(shared, noise):
        denoiser = denoiser_at(task, shared)(settings.guidance_scale)
        return ode.advance(denoiser, schedule, ode.start(schedule, noise, grid[0]), grid[0]).xhat_t

    def now(step):
        return grid[step + 1], {"t_prime": grid[step]}

    task = task._replace(settings=settings)
    return _run(task, seeds, start, _variable(task)[1], optax.sgd(1.0), now, on_step)


def _run(task: Task, seeds, start, latent, optimiser, now, on_step) -> Result:
    """All seeds at once down the method's gradient.

    Args:
        start: (shared, noise [h, w, c]) -> what is optimised.
        latent: (shared, what is optimised) -> x [h, w, c].
        now: step -> t, and what the method is told beside its settings if it takes it.
    """

    def begin(shared, seed, noise):
        params, method = start(shared, noise), method_step.initial(task)(method_key(seed))
        return Canvas(seed, jnp.zeros((), jnp.int32), params, optimiser.init(params), method)

    def one(shared, canvas: Canvas, noise) -> Canvas:
        key, (t, told) = step_key(canvas.seed, canvas.step), now(canvas.step)
        gradient = task.method.gradient
        told_method = task.method._replace(gradient=partial(gradient, **taken(gradient, told)))
        x, pull_back = jax.vjp(partial(latent, shared), canvas.params)
        seen = t, canvas, *jax.tree.map(lambda leaf: leaf[None], _place(task))
        told_task = task._replace(method=told_method)
        grad, _ = method_step.gradient(told_task, shared, key, x[None], noise, *seen)
        method, _ = method_step.train(task, shared, jax.random.fold_in(key, 2), x[None], *seen)
        grads = pull_back(grad[0])[0]
        updates, opt_state = optimiser.update(grads, canvas.opt_state, canvas.params)
        params = optax.apply_updates(canvas.params, updates)
        return Canvas(canvas.seed, canvas.step + 1, params, opt_state, method)

    steps, noise, kept = task.settings.steps, noises(task, seeds), []
    step = jax.jit(jax.vmap(one, (None, 0, 0)))
    show = jax.jit(jax.vmap(latent, (None, 0)))
    canvases = jax.jit(jax.vmap(begin, (None, 0, 0)))(
        task.shared, jnp.asarray(seeds, jnp.uint32), noise
    )
    for i in range(steps):
        canvases = step(task.shared, canvases, noise)
        if i in _strip(steps):
            kept.append(show(task.shared, canvases.params))
        on_step(i + 1)
    return _pictures(task, jnp.stack(kept, 1))


def _variable(task: Task) -> tuple[Any, Callable]:
    """What is optimised at the start, and (shared, variable) -> x [h, w, c]."""
    prior, side = task.prior, task.prior.image_size
    if task.space == "latents":
        return jnp.zeros(prior.latent_shape), lambda shared, params: params
    if task.space == "pixels":
        image = jnp.full((side, side, 3), float(logit(GREY)))
        return image, lambda shared, p: prior.encode(shared.prior, nn.sigmoid(p))
    network, line = CoordinateNetwork(), jnp.linspace(-1, 1, side)
    points = jnp.stack(jnp.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)

    def latent(shared, params):
        logits = jnp.asarray(network.apply({"params": params}, points))
        return prior.encode(shared.prior, nn.sigmoid(logits).reshape(side, side, 3))

    return network.init(jax.random.key(1), points[:1])["params"], latent


def _pictures(task: Task, latents: Float[Array, "n k h w c"]) -> Result:
    """Decoded one by one, so that memory does not depend on how many there are."""
    decode = jax.jit(task.prior.decode)
    flat = latents.reshape(-1, *latents.shape[2:])
    images = jnp.stack([decode(task.shared.prior, x) for x in flat])
    images = images.reshape(*latents.shape[:2], *images.shape[1:])
    return Result(images[:, -1], images)


def _strip(steps: int) -> set[int]:
    """Steps after which a picture is kept: at most `STRIP`, evenly spread, the last included."""
    count = min(STRIP, steps)
    return {round((i + 1) * steps / count) - 1 for i in range(count)}
