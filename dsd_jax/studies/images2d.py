"""Text to pictures: the same methods on a free image per seed, without a renderer.

Letters: n seeds, h w c a latent, H W pixels, k pictures of a strip. What is optimised is, by space,
    latents   x itself, [h, w, c]
    pixels    an image in logits, [H, W, 3], whose latent is x
    network   a small network from coordinates to colours, whose image's latent is x
and how, by name,
    dsd-star   `follow`: latents along the seed's ODE itself
    dsd-plain  `descend`: latents by plain steps of size one down the gradient of 3D
    dsd, ...   `optimise`: by Adam, as in 3D, down the gradient of any of `METHODS`
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float
from scipy.special import logit

from dsd_jax import ode
from dsd_jax.distillation import METHODS, dsd
from dsd_jax.engine import memory
from dsd_jax.engine import task as tasks
from dsd_jax.engine.plan import all_at_once
from dsd_jax.priors import Prior
from dsd_jax.recipe import annealing
from dsd_jax.recipe.recipe import Recipe, changed, with_method
from dsd_jax.recipe.viewpoints import Shared
from dsd_jax.rendering.scene import GREY
from dsd_jax.studies.free import Descent, ImageTask, advance, begin

SPACES = ("latents", "pixels", "network")
STAR, PLAIN = "dsd-star", "dsd-plain"
# What moves latents alone.
ON_LATENTS = (STAR, PLAIN)
NAMES = (*METHODS, *ON_LATENTS)
# What pictures start from: without fresh noise, and to nearly no noise.
PICTURES = changed(Recipe(), steps=200, views=1, grid_rate=0.03, t_min=0.02, eta=0.0)
STRIP = 8
# What is called after a step: with how many are done, and which seeds are frozen, [n].
OnStep = Callable[[int, Any], None]


class Result(NamedTuple):
    """Pictures in [0, 1]: the last ones [n, H, W, 3], and on the way there [n, k, H, W, 3].

    The last one of a seed that diverged is nan.
    """

    images: Float[Array, "n H W 3"]
    strip: Float[Array, "n k H W 3"]


def _unwatched(step: int, frozen: Any) -> None: ...


class CoordinateNetwork(nn.Module):
    """Points [n, 2] in [-1, 1] -> logits of k channels [n, k], by sines of random waves and an MLP.

    Fourier features (Tancik et al. 2020, arXiv 2006.10739).
    """

    channels: int = 3
    waves: int = 64
    scale: float = 6.0
    width: int = 64

    @nn.compact
    def __call__(self, points: Float[Array, "n 2"]) -> Float[Array, "n k"]:
        directions = jax.random.normal(jax.random.key(0), (2, self.waves)) * self.scale
        phase = points @ directions
        hidden = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1)
        for _ in range(2):
            hidden = nn.relu(nn.Dense(self.width)(hidden))
        bias = nn.initializers.constant(float(logit(GREY)))
        return nn.Dense(self.channels, bias_init=bias)(hidden)


def recipe_by(recipe: Recipe, name: str, **values: Any) -> Recipe:
    """The recipe by another of `NAMES`, and with these numbers in place of its own.

    Of dsd-plain it is what follows the seed's ODE, where `values` do not say otherwise: the
    published form, w' being w, and an ODE with a grid point for every step, T being one more.

    Raises ValueError as `recipe.changed` does.
    """
    recipe = with_method(recipe, name if name in METHODS else "dsd")
    if name == PLAIN:
        whole = changed(recipe, **values)
        same = {
            "anchor": "interpolated",
            "guidance_scale_prime": whole.method.guidance_scale,
            "ode_points": whole.steps + 1,
        }
        values = same | values
    return changed(recipe, **values)


def way_of(name: str) -> Callable[..., Result]:
    """What makes the pictures of one of `NAMES`: (image task, seeds, `OnStep`) -> `Result`."""
    return {STAR: follow, PLAIN: descend}.get(name, optimise)


def make_task(
    prior: Prior, prompt: str, recipe: Recipe, azimuth=0.0, elevation=0.0, space: str = "latents",
    only_shapes: bool = False,
) -> ImageTask:  # fmt: skip
    """Everything that all seeds of a prompt share.

    Args:
        recipe: of any number of views; here there is one.
        azimuth, elevation: radians, where it stands.
        only_shapes: as in `engine.task.make_task`.

    Raises:
        ValueError: as `engine.task.make_task`; there is no such space.
    """
    if space not in SPACES:
        raise ValueError(f"--space {space!r} is not one of {', '.join(SPACES)}")
    task = tasks.make_task(prior, prompt, changed(recipe, views=1), only_shapes=only_shapes)
    return ImageTask(task, azimuth, elevation, space)


def refuse_too_many(image: ImageTask, seeds: Sequence[int]) -> None:
    """Raise ValueError, in one line, where there is no room for so many seeds at once."""
    prior, recipe = image.prior, image.recipe
    needs = memory.needs(prior, recipe, image.task.condition)
    pictures = 4 * 3 * prior.image_size**2 * (2 + STRIP)
    encoder = 0 if image.space == "latents" else needs.encoder
    own = needs._replace(field=pictures, rendering=0, encoder=encoder, cache=0, in_turn=0)
    all_at_once(image.task, seeds, own)


def finite(images: Float[np.ndarray, "n H W 3"]) -> Bool[np.ndarray, "n"]:
    """Which pictures hold finite numbers alone."""
    return np.asarray(np.isfinite(images).all((1, 2, 3)))


def ddim(image: ImageTask, seeds, steps: int) -> Float[Array, "n H W 3"]:
    """The prior's own picture of each seed, by DDIM over `steps` grid points."""
    prior, schedule = image.prior, image.prior.schedule
    grid = ode.linear_grid(steps, schedule.last)

    @jax.jit
    def sample(shared, noise):
        denoiser = image.denoiser_at(shared)(image.recipe.method.guidance_scale)
        end = ode.integrate(denoiser, schedule, noise, grid, grid[-1])
        return prior.decode(shared.prior, end.xhat_t)[..., :3]

    return jax.lax.map(partial(sample, image.shared), image.noises(seeds))


def follow(image: ImageTask, seeds, on_step: OnStep = _unwatched) -> Result:
    """DSD* on latents: plain gradient steps of size one along each seed's ODE.

    See `dsd.exact_gradient`. With as many steps as DDIM has grid points this is DDIM.
    """
    recipe, schedule = image.recipe, image.prior.schedule
    grid = ode.linear_grid(recipe.steps, schedule.last)
    first = jax.vmap(lambda noise: ode.start(schedule, noise, grid[0]))(image.noises(seeds))

    @jax.jit
    def step(shared, x, eps, frozen, t):
        def one(x, eps, frozen):
            denoiser = image.denoiser_at(shared)(recipe.method.guidance_scale)
            grad, ahead = dsd.exact_gradient(denoiser, schedule, x, eps, t)
            fine = jnp.isfinite(grad).all() & jnp.isfinite(ahead).all() & ~frozen
            return jnp.where(fine, x - grad, x), jnp.where(fine, ahead, eps), ~fine

        return jax.vmap(one)(x, eps, frozen)

    x, eps, kept, shared = first.xhat_t, first.eps_t, [], image.shared
    frozen = jnp.zeros(len(x), bool)
    for i, t in enumerate(grid):
        x, eps, frozen = step(shared, x, eps, frozen, t)
        if i in _strip(recipe.steps):
            kept.append(x)
        on_step(i + 1, frozen)
    return _pictures(image, jnp.stack(kept, 1), frozen)


def optimise(image: ImageTask, seeds, on_step: OnStep = _unwatched) -> Result:
    """Adam on the method's gradient, from one start for all seeds; t falls as in 3D.

    Latents start at 0, their mean; images start in the background's grey.
    """
    recipe, schedule, numbers = image.recipe, image.prior.schedule, image.recipe.optimise
    start, latent = _variable(image)
    adam = optax.adam(numbers.grid_rate, numbers.beta1, numbers.beta2)

    def now(step):
        return annealing.run_timestep(step, recipe, schedule), None

    return _run(image, seeds, lambda shared, noise: start, Descent(latent, adam, now), on_step)


def descend(image: ImageTask, seeds, on_step: OnStep = _unwatched) -> Result:
    """Latents by plain steps of size one down the method's gradient, t falling evenly from T to 0.

    DSD in the form that 3D uses follows its seed's ODE this way, since x begins on it, at the
    seed's one-step prediction at T; t' is the t of the step before, T at first; and the weight is
    s_t. If the simulated ODE has the same grid, `ode_points` = `steps` + 1, w' is w and `eta` is 0
    (see `recipe_by`), this is DDIM over it, with either `anchor`. Beside a coarser one, as 3D has
    it, x drifts off, and with more steps further: nothing pulls it back.

    Raises ValueError for a space other than latents.
    """
    if image.space != "latents":
        raise ValueError(f"plain descent moves latents alone, not --space {image.space}")
    recipe, schedule = changed(image.recipe, weighting="one-step"), image.prior.schedule
    image = image._replace(task=image.task._replace(recipe=recipe))
    grid = jnp.asarray(ode.linear_grid(recipe.steps + 1, schedule.last))

    def start(shared, noise):
        denoiser = image.denoiser_at(shared)(recipe.method.guidance_scale)
        return ode.advance(denoiser, schedule, ode.start(schedule, noise, grid[0]), grid[0]).xhat_t

    def now(step):
        return grid[step + 1], grid[step]

    descent = Descent(_variable(image)[1], optax.sgd(1.0), now)
    return _run(image, seeds, start, descent, on_step)


def _run(image: ImageTask, seeds, start, descent: Descent, on_step: OnStep) -> Result:
    """All seeds at once down the method's gradient.

    Args:
        start: (shared, noise [h, w, c]) -> what is optimised.
    """

    def first(shared, seed, noise):
        return begin(image, descent, seed, start(shared, noise))

    steps, noise, kept, shared = image.recipe.steps, image.noises(seeds), [], image.shared
    step = jax.jit(jax.vmap(partial(advance, image, descent), (None, 0, 0)))
    show = jax.jit(jax.vmap(descent.latent, (None, 0)))
    canvases = jax.jit(jax.vmap(first, (None, 0, 0)))(shared, jnp.asarray(seeds, jnp.uint32), noise)
    for i in range(steps):
        canvases = step(shared, canvases, noise)
        if i in _strip(steps):
            kept.append(show(shared, canvases.params))
        on_step(i + 1, canvases.frozen)
    return _pictures(image, jnp.stack(kept, 1), canvases.frozen)


def _variable(image: ImageTask) -> tuple[Any, Callable[[Shared, Any], jax.Array]]:
    """What is optimised at the start, and (shared, variable) -> x [h, w, c]."""
    prior, side, channels = image.prior, image.prior.image_size, 3 + image.prior.sees_opacity
    if image.space == "latents":
        return jnp.zeros(prior.latent_shape), lambda shared, params: params
    if image.space == "pixels":
        grey = jnp.full((side, side, channels), float(logit(GREY)))
        return grey, lambda shared, p: prior.encode(shared.prior, nn.sigmoid(p))
    network, line = CoordinateNetwork(channels), jnp.linspace(-1, 1, side)
    points = jnp.stack(jnp.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)

    def latent(shared, params):
        logits = jnp.asarray(network.apply({"params": params}, points))
        return prior.encode(shared.prior, nn.sigmoid(logits).reshape(side, side, channels))

    return network.init(jax.random.key(1), points[:1])["params"], latent


def _pictures(
    image: ImageTask, latents: Float[Array, "n k h w c"], frozen: Bool[Array, "n"]
) -> Result:
    """Decoded one by one, so that memory does not depend on how many there are."""
    decode = jax.jit(image.prior.decode)
    flat = latents.reshape(-1, *latents.shape[2:])
    images = jnp.stack([decode(image.shared.prior, x) for x in flat])
    images = images[..., :3].reshape(*latents.shape[:2], *images.shape[1:3], 3)
    return Result(jnp.where(frozen[:, None, None, None], jnp.nan, images[:, -1]), images)


def _strip(steps: int) -> set[int]:
    """Steps after which a picture is kept: at most `STRIP`, evenly spread, the last included."""
    count = min(STRIP, steps)
    return {round((i + 1) * steps / count) - 1 for i in range(count)}
