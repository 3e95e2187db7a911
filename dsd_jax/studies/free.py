"""A free image per seed: any method without an object, so that what one view shows is optimised.

Pictures (`images2d`) and points of the plane (`mixture`) move by the same step, and ask the method
by the same `recipe.method_step` as objects do.

Letters: n seeds, h w c a latent; a point of the plane is a latent of shape [2].
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, UInt

from dsd_jax.distillation import Given
from dsd_jax.engine.task import Task
from dsd_jax.guidance import DenoiserAt
from dsd_jax.priors import Prior, Viewpoint
from dsd_jax.recipe import method_step
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.state import method_key, noise_of, step_key
from dsd_jax.recipe.viewpoints import Shared, guided, viewpoint_at


class ImageTask(NamedTuple):
    """A task, and where the one view of it stands that is optimised.

    Attributes:
        task: its recipe has one view; `optimise.grid_rate` is Adam's rate.
        azimuth, elevation: radians, what a prior that knows cameras is told.
        space: what is optimised, of `images2d.SPACES`.
        given: what the method is told beside at every step, in place of what a run would tell it.
    """

    task: Task
    azimuth: float = 0.0
    elevation: float = 0.0
    space: str = "latents"
    given: Given = Given()

    @property
    def prior(self) -> Prior:
        return self.task.prior

    @property
    def recipe(self) -> Recipe:
        return self.task.recipe

    @property
    def shared(self) -> Shared:
        """What all seeds share; pass it to jitted functions."""
        return self.task.shared

    @property
    def viewpoint(self) -> Viewpoint:
        """Where the view is taken from."""
        return viewpoint_at(self.azimuth, self.elevation, self.recipe.camera)[0]

    def denoiser_at(self, shared: Shared) -> DenoiserAt:
        """Guidance scale -> denoiser of the view."""
        told = shared.prior, shared.condition, self.viewpoint
        return guided(self.prior, *told, self.recipe.method)

    def noises(self, seeds: Any) -> Float[Array, "n h w c"]:
        """The noise of each seed; the same that it has in 3D."""
        draw = partial(noise_of, shape=self.prior.latent_shape, recipe=self.recipe)
        return jax.vmap(draw)(jnp.asarray(seeds, jnp.uint32))


class Canvas(NamedTuple):
    """One seed's optimisation.

    Attributes:
        params: what is optimised.
        opt_state: the optimiser's.
        method: of the network that the method trains, None where it trains none.
        frozen: whether a step's gradient was not finite; it stays as it was before, from then on.
    """

    seed: UInt[Array, ""]
    step: Int[Array, ""]
    params: Any
    opt_state: Any
    method: Any
    frozen: Bool[Array, ""]


class Descent(NamedTuple):
    """How a canvas moves.

    Attributes:
        latent: (shared, what is optimised) -> x [h, w, c].
        optimiser: of what is optimised.
        now: step -> t and t'; t' is None where the method is to draw it.
    """

    latent: Callable[[Shared, Any], jax.Array]
    optimiser: optax.GradientTransformation
    now: Callable[[Any], tuple[Any, Any]]


def begin(image: ImageTask, descent: Descent, seed: jax.Array, params: Any) -> Canvas:
    """A seed's canvas before its first step; vmap over seeds for several."""
    method = method_step.initial(image.prior, image.recipe)(method_key(seed))
    opt_state, no = descent.optimiser.init(params), jnp.zeros((), bool)
    return Canvas(seed, jnp.zeros((), jnp.int32), params, opt_state, method, no)


def advance(
    image: ImageTask, descent: Descent, shared: Shared, canvas: Canvas, noise: Float[Array, "h w c"]
) -> Canvas:
    """The canvas after a step down the method's gradient; vmap over canvases and noises."""
    prior, recipe, optimiser = image.prior, image.recipe, descent.optimiser
    key, (t, t_prime) = step_key(canvas.seed, canvas.step), descent.now(canvas.step)
    given = image.given._replace(t_prime=t_prime)
    views = jax.tree.map(lambda leaf: leaf[None], image.viewpoint)
    seen = method_step.Seen(t, canvas.step, canvas.method, None, views, given)
    x, pull_back = jax.vjp(partial(descent.latent, shared), canvas.params)
    grad, _ = method_step.gradient(prior, recipe, shared, key, x[None], noise, seen)
    train_key = jax.random.fold_in(key, 2)
    method, _ = method_step.train(prior, recipe, shared, train_key, x[None], seen)
    (grads,) = pull_back(grad[0])
    updates, opt_state = optimiser.update(grads, canvas.opt_state, canvas.params)
    params = optax.apply_updates(canvas.params, updates)
    fine = jnp.isfinite(grad).all() & jnp.isfinite(optax.global_norm(grads)) & ~canvas.frozen
    before = canvas.params, canvas.opt_state, canvas.method
    params, opt_state, method = jax.tree.map(
        lambda new, old: jnp.where(fine, new, old), (params, opt_state, method), before
    )
    return Canvas(canvas.seed, canvas.step + 1, params, opt_state, method, ~fine)
