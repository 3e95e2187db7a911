"""The methods on a prior that is known exactly: one free point per seed, in the plane.

Letters: n seeds, k components of the mixture, m points of a path. Here the score, the ODE and so
the mode that a seed's noise leads to are exact: where does each method end? Ways to descend:

    whole steps     x - gradient with weight s_t, and t' of DSD at the step before; what a method
                    asks for is done: SDS puts x to its one-step prediction, DSD goes along its ODE
                    as far as t falls
    Adam            on the gradient as in 2D (`images2d`) and 3D, in many small steps of one size
    Adam with size  on the gradient of whole steps, with an epsilon above its size that is also the
                    rate: Adam then evens out what is large and keeps the size of what is small
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from dsd_jax import ode
from dsd_jax.distillation import METHODS, TrainedMethod, dsd
from dsd_jax.engine.task import Task
from dsd_jax.export.paths import draw_paths
from dsd_jax.guidance import DenoiserAt
from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.priors.gaussian import GaussianMixture, GaussianPrior
from dsd_jax.recipe import annealing
from dsd_jax.recipe.recipe import Recipe, changed, with_method
from dsd_jax.recipe.state import seed_noise
from dsd_jax.schedule import NoiseSchedule
from dsd_jax.studies.free import Descent, ImageTask, advance, begin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Guidance 1, with which the ODE samples the prompt's mixture exactly; DSD as published, without
# fresh noise. `optimise.grid_rate` is Adam's rate.
RECIPE = changed(
    Recipe(), steps=500, guidance_scale=1.0, guidance_scale_prime=1.0,
    anchor="interpolated", eta=0.0, t_min=0.02, views=1, grid_rate=0.01,
)  # fmt: skip
# Adam's rate for the shift of the means that VSD and ASD train.
SHIFT_RATE = 0.03
# Epsilon and rate of "Adam with size".
_SIZE = 0.1
Way = Literal["whole steps", "Adam", "Adam with size"]
REACH = 3.0
LEGEND = (
    "Colour: the mode that the exact ODE of the same seed ends in. Percent: seeds that end there.\n"
    "Lines: paths of {shown} seeds. Dots: ends of all. Circles: modes, two standard deviations; "
    "dotted where the prompt does not ask for it."
)


class Plane(NamedTuple):
    """A prior over points of the plane, and a prompt for some of its components.

    Attributes:
        text: conditioning of the prompt, log weights, -inf where it does not ask for a component.
    """

    prior: GaussianMixture
    text: Float[Array, " k"]
    schedule: NoiseSchedule

    @property
    def denoiser_at(self) -> DenoiserAt:
        return self.prior.denoiser_at(self.schedule, self.text)

    @property
    def std(self) -> Float[Array, " k"]:
        """Standard deviation of each component."""
        return jnp.sqrt(self.prior.variance[:, 0])


def six_modes() -> Plane:
    """Eight components, of which a prompt asks for the first six.

    They differ in weight, width and distance, and one lies in the middle, where methods that
    average end; the mean of the six is 0, where all methods start.
    """
    weights = jnp.array([0.25, 0.15, 0.2, 0.1, 0.15, 0.15, 0.1, 0.1])
    places = [[-1.5, 0.9], [0.2, 1.7], [1.5, 0.4], [0.7, -1.3], [-1.1, -0.9], [-0.1, 0.2],
              [2.6, -1.4], [-2.7, -0.4]]  # fmt: skip
    std = jnp.array([0.22, 0.3, 0.18, 0.22, 0.3, 0.18, 0.3, 0.3])
    mean = jnp.array(places) - weights[:6] @ jnp.array(places[:6])
    prior = GaussianMixture(jnp.log(weights), mean, jnp.repeat(std[:, None] ** 2, 2, 1))
    return Plane(
        prior, prior.only(*range(6)), NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)
    )


def noises(seeds: Sequence[int]) -> Float[Array, "n 2"]:
    """The noise of each seed, drawn as for latents."""
    return jax.vmap(lambda seed: seed_noise(seed, (2,)))(jnp.asarray(seeds, jnp.uint32))


def recipe_by(recipe: Recipe, name: str) -> Recipe:
    """The recipe by another method of `METHODS`. Raises as `recipe.with_method` does."""
    trains = name in METHODS and issubclass(METHODS[name], TrainedMethod)
    return with_method(recipe, name, **({"lora_rate": SHIFT_RATE} if trains else {}))


def ddim(
    plane: Plane, seeds: Sequence[int], points: int = 1000, guidance_scale: float = 1.0
) -> Float[Array, "n m 2"]:
    """One-step predictions along each seed's ODE; the last ones are DDIM's samples.

    With all of the prior's timesteps, 1000, this is what the module calls exact.
    """
    return _ddim(plane, noises(seeds), points, guidance_scale)


@partial(jax.jit, static_argnums=(2, 3))
def _ddim(plane: Plane, noise, points: int, guidance_scale: float):
    denoiser = plane.denoiser_at(guidance_scale)
    grid = ode.linear_grid(points, plane.schedule.last)
    return jax.vmap(lambda x_T: ode.trajectory(denoiser, plane.schedule, x_T, grid).xhat_t)(noise)


def follow(
    plane: Plane, seeds: Sequence[int], points: int = 50, guidance_scale: float = 1.0
) -> Float[Array, "n m 2"]:
    """DSD*: a free point by plain steps of size one along each seed's ODE, see `dsd`."""
    return _follow(plane, noises(seeds), points, guidance_scale)


@partial(jax.jit, static_argnums=(2, 3))
def _follow(plane: Plane, noise, points: int, guidance_scale: float):
    denoiser = plane.denoiser_at(guidance_scale)
    grid = jnp.asarray(ode.linear_grid(points, plane.schedule.last))

    def step(carry, t):
        x, eps = carry
        grad, eps = dsd.exact_gradient(denoiser, plane.schedule, x, eps, t)
        return (x - grad, eps), x - grad

    def one(x_T):
        first = ode.start(plane.schedule, x_T, grid[0])
        return jax.lax.scan(step, (first.xhat_t, first.eps_t), grid)[1]

    return jax.vmap(one)(noise)


def optimise(
    plane: Plane, recipe: Recipe, seeds: Sequence[int], way: Way = "whole steps"
) -> Float[Array, "n m 2"]:
    """The point of each seed after every step of the recipe's method, from 0 on; t falls as in 3D.

    Args:
        recipe: for instance `recipe_by(RECIPE, "sds")`.
        way: how the point descends; "Adam" has the rate `optimise.grid_rate`.

    Returns:
        nan from the step on whose gradient was not finite.
    """
    numbers = jnp.asarray(seeds, jnp.uint32)
    return _optimise(plane, recipe, numbers, noises(seeds), way)


@partial(jax.jit, static_argnums=(1, 4))
def _optimise(plane: Plane, recipe: Recipe, seeds, noise, way: Way):
    recipe = recipe if way == "Adam" else changed(recipe, weighting="one-step")
    image, descent = _image(plane, recipe), _descent(recipe, plane.schedule, way)

    def step(noise, canvas, _):
        canvas = advance(image, descent, image.shared, canvas, noise)
        return canvas, jnp.where(canvas.frozen, jnp.nan, canvas.params)

    def one(seed, noise):
        first = begin(image, descent, seed, jnp.zeros(2))
        return jax.lax.scan(partial(step, noise), first, length=recipe.steps)[1]

    return jax.vmap(one)(seeds, noise)


def _image(plane: Plane, recipe: Recipe) -> ImageTask:
    """The plane as any prior is given to a method; NFSD's bad points are all others."""
    prior: Any = GaussianPrior(plane.prior, plane.schedule, names=())
    others = jnp.where(jnp.isinf(plane.text), plane.prior.log_weights, -jnp.inf)
    return ImageTask(Task(prior, recipe, "six modes", plane.text, others))


def _descent(recipe: Recipe, schedule: NoiseSchedule, way: Way) -> Descent:
    """How a point moves: see the module."""
    numbers = recipe.optimise
    adam = partial(optax.adam, b1=numbers.beta1, b2=numbers.beta2)
    by = {
        "whole steps": optax.sgd(1.0),
        "Adam": adam(numbers.grid_rate),
        "Adam with size": adam(_SIZE, eps=_SIZE),
    }

    def now(step):
        t = annealing.run_timestep(step, recipe, schedule)
        if way == "Adam":
            return t, None
        before = annealing.run_timestep(step - 1, recipe, schedule)
        return t, jnp.where(step > 0, before, schedule.last)

    return Descent(lambda shared, x: x, by[way], now)


def nearest(plane: Plane, x: Float[Array, "n 2"]) -> Int[Array, " n"]:
    """The component whose mean is nearest."""
    return jnp.argmin(_distances(plane, x), 1)


def scores(plane: Plane, x: Float[Array, "n 2"], exact: Float[Array, "n 2"]) -> dict[str, float]:
    """Where points ended, beside where the ODE of the same seeds ends.

    Returns:
        same_mode: share whose nearest mean is that of their ODE's sample, both finite.
        any_mode: share within `REACH` standard deviations of a mean that the prompt asks for.
        modes: effective number of nearest means, exp of their entropy: the Vendi score (arXiv
            2210.02410) of the kernel that is 1 within a mode and else 0.
        to_mode: mean distance to the nearest mean.
        to_ode: mean distance to the ODE's sample.
    """
    distances = _distances(plane, x)
    asked = jnp.where(jnp.isinf(plane.text), jnp.inf, distances / plane.std)
    ends, to_ode = nearest(plane, x), jnp.linalg.norm(x - exact, axis=1)
    same = (ends == nearest(plane, exact)) & jnp.isfinite(to_ode)
    shares = np.bincount(np.asarray(ends)) / len(x)
    shares = shares[shares > 0]
    return {
        "same_mode": float(jnp.mean(same)),
        "any_mode": float(jnp.mean(asked.min(1) < REACH)),
        "modes": float(np.exp(-(shares * np.log(shares)).sum())),
        "to_mode": float(distances.min(1).mean()),
        "to_ode": float(to_ode.mean()),
    }


def draw(
    plane: Plane,
    panels: Mapping[str, Float[Array, "n m 2"]],
    exact: Float[Array, "n 2"],
    **kept: Any,
) -> "Figure":
    """A panel for each {name: paths}, coloured by where the ODE of the same seeds ends.

    `kept` is for `draw_paths`.
    """
    titles = {}
    for name, paths in panels.items():
        share = scores(plane, paths[:, -1], exact)["same_mode"]
        titles[f"{name}: {100 * share:.3g}%"] = np.asarray(paths)
    kept.setdefault("shown", 25)
    kept.setdefault("legend", LEGEND.format(shown=min(kept["shown"], len(exact))))
    groups, centres = np.asarray(nearest(plane, exact)), np.asarray(plane.prior.mean)
    wanted = np.isfinite(np.asarray(plane.text))
    circles = centres, 2 * np.asarray(plane.std), wanted
    return draw_paths(titles, groups, *circles, **kept)


def _distances(plane: Plane, x: Float[Array, "n 2"]) -> Float[Array, "n k"]:
    return jnp.linalg.norm(x[:, None] - plane.prior.mean, axis=-1)
