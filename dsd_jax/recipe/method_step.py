"""What a distillation method is given, in 3D and in 2D, and what it gives back.

Letters: v views, h w c latents. Several views are denoised together by a prior that does so, else
one by one; the network that a method trains is trained once a step, on all of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsd_jax.distillation import Given, TrainedMethod
from dsd_jax.ode import Denoiser
from dsd_jax.priors.base import Prior, Viewpoint
from dsd_jax.recipe import annealing, kept_ode
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.viewpoints import Shared, guided, visible


class Seen(NamedTuple):
    """What a method needs of the moment of a run; an axis v has only the viewpoints.

    Attributes:
        t: [] timestep.
        step: [] steps done.
        method: of the network that the method trains, None where it trains none.
        ode: what is kept of the seed's ODE, None where nothing is.
        viewpoints: leaves with leading axis v.
        given: what is known beside, in place of what a run would give.
    """

    t: Any
    step: Any
    method: Any
    ode: kept_ode.KeptOde | None
    viewpoints: Viewpoint
    given: Given = Given()


def gradient(prior: Prior, recipe: Recipe, shared: Shared, key, x, noise, seen: Seen):
    """The distillation gradient on x [v, h, w, c], and what the method logs.

    Args:
        noise: [h, w, c] for one view, else like x.
    """
    one = partial(_of_view, prior, recipe, shared, seen)
    if recipe.camera.views == 1:
        grad, logs = one(seen.ode, key, x[0], noise, _first(seen.viewpoints))
        return grad[None], logs
    if prior.denoises_together:
        return one(seen.ode, key, x, noise, seen.viewpoints)
    keys = jnp.broadcast_to(key, (recipe.camera.views,))
    axes = 0 if kept_ode.own_noises(prior, recipe) else None, 0, 0, 0, 0
    return jax.vmap(one, in_axes=axes)(seen.ode, keys, x, noise, seen.viewpoints)


def _of_view(prior: Prior, recipe: Recipe, shared: Shared, seen: Seen, ode, key, x, noise, place):
    """The same for one view [h, w, c], or for several that are denoised together."""
    weights, condition = shared.prior, shared.condition
    given = seen.given._replace(
        progress=annealing.progress(seen.step, recipe),
        t_range=(recipe.optimise.t_max, recipe.optimise.t_min),
    )
    if shared.reference is not None:
        given = given._replace(
            least_eta=recipe.reference.visible_eta * visible(place, shared.others)
        )
    if shared.negative is not None:
        given = given._replace(negative=prior.prediction_at(weights, shared.negative, place))
    if seen.method is not None:
        given = given._replace(learned=_learned(prior, shared, seen.method.weights, place))
    if ode is not None:
        ode_at = kept_ode.ode_at(ode, prior, weights, condition, place, recipe, noise)
        given = given._replace(ode_at=ode_at)
    denoiser_at = guided(prior, weights, condition, place, recipe.method)
    grad, logs = recipe.method.gradient(key, denoiser_at, prior.schedule, x, noise, seen.t, given)
    return grad, logs | ({} if ode is None else ode.metrics)


def train(prior: Prior, recipe: Recipe, shared: Shared, key, x, seen: Seen):
    """The state of the network that the method trains after a step on x, and what it logs.

    The arguments are those of `gradient`; without such a network the state is None.
    """
    method, viewpoints = recipe.method, seen.viewpoints
    if not isinstance(method, TrainedMethod):
        return None, {}
    one_by_one = recipe.camera.views > 1 and not prior.denoises_together
    if recipe.camera.views == 1:
        x, viewpoints = x[0], _first(viewpoints)

    def of_views(at: Callable[[Viewpoint], Denoiser]) -> Denoiser:
        """viewpoint -> Denoiser becomes the Denoiser of all views."""
        if not one_by_one:
            return at(viewpoints)
        return lambda x, t: jax.vmap(lambda x, place: at(place)(x, t))(x, viewpoints)

    def denoiser_at(scale):
        given = shared.prior, shared.condition
        return of_views(lambda place: guided(prior, *given, place, method)(scale))

    def learned_at(weights):
        return of_views(partial(_learned, prior, shared, weights))

    return method.update(key, seen.method, learned_at, denoiser_at, prior.schedule, x, seen.t)


def _learned(prior: Prior, shared: Shared, weights, viewpoint) -> Denoiser:
    """The adapted network, told of the view what the prior is told, but without guidance."""
    return prior.prediction_at(prior.adapt(shared.prior, weights), shared.condition, viewpoint)


def initial(prior: Prior, recipe: Recipe) -> Callable[[jax.Array], Any]:
    """key -> the state of the network that the method trains, None where it trains none."""
    method = recipe.method
    if not isinstance(method, TrainedMethod):
        return lambda key: None
    shapes = jax.eval_shape(lambda: prior.params)
    adapter = partial(prior.init_adapter, params=shapes, rank=method.lora_rank)
    return lambda key: method.init(key, adapter)


def _first(tree: Any) -> Any:
    """The first view."""
    return jax.tree.map(lambda leaf: leaf[0], tree)
