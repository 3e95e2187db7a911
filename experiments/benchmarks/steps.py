"""Work of whole steps, with the seed's ODE followed or kept. Letters: n seeds, b batch."""

import dataclasses
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax import ode
from dsd_jax.engine import loop
from dsd_jax.engine.plan import Task, initial_states, make_blocks
from dsd_jax.models.networks import unet_param_shapes
from dsd_jax.models.unet import UNet
from dsd_jax.recipe import kept_ode
from dsd_jax.recipe.step import Recipe, Shared, make_cache, make_step

from .work import Ready, operations, size_of


def with_ode(task: Task, mode: str) -> Task:
    """The same task with another `Settings.ode`."""
    return task._replace(settings=dataclasses.replace(task.settings, ode=mode))


def iteration(task: Task, n: int) -> Ready:
    """All steps of n seeds, t falling from its first value to its last. Units are seed-steps.

    Operations: those of a step, in which XLA counts the body of the ODE's loop once, and an
    evaluation for each further turn of that loop which the seed's own t' asks for.
    """
    steps, settings = task.settings.steps, task.settings
    mesh = loop.seed_mesh(n)
    recipe = _recipe(task)
    initial, shared = _start(task, recipe, n, mesh)
    block = make_blocks(task, mesh)[0][1]
    again = jax.jit(partial(jax.tree.map, jnp.copy))

    states, turns = again(initial), []
    for i in range(steps):
        states, metrics = block(states, i, i + 1, shared)
        turns.append(jax.device_get(metrics["t_prime"]))
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), initial)
    per_step = operations(make_step(recipe), one, jax.eval_shape(lambda: shared))
    if settings.ode == "exact":
        grid = np.array(ode.linear_grid(settings.ode_points))
        extra = np.mean(np.sum(grid > np.array(turns)[..., None], -1))
        per_step += extra * evaluation(task)
    moved = 2 * size_of(one) + size_of(shared) / n

    def call():
        return block(again(initial), 0, steps, shared)

    return Ready(call, per_step, moved, steps * n)


def keep(task: Task, n: int) -> Ready:
    """The ODE kept for n seeds, once for all their steps. Units are seeds."""
    recipe = _recipe(task)
    fill = make_cache(recipe)
    assert fill is not None
    states, shared = _start(task, recipe, n, loop.seed_mesh(n), filled=False)
    keep = jax.jit(jax.vmap(lambda state, shared: fill(state, shared).cache, (0, None)))
    kept = jax.block_until_ready(keep(states, shared))
    settings, schedule = task.settings, task.prior.schedule
    viewpoints = kept_ode.centres(task.prior, settings).azimuth
    evaluations = len(kept_ode.node_times(settings, schedule))
    if settings.ode == "table":
        evaluations += len(kept_ode.times_of(settings, schedule))
    together = 1 if viewpoints.ndim > 1 else settings.views
    needed = len(viewpoints) * evaluations * evaluation(task) / together
    return Ready(lambda: keep(states, shared), needed, size_of(kept) / n, n)


def evaluation(task: Task) -> float:
    """Operations of a guided prediction for all views of a step."""
    prior, settings = task.prior, task.settings
    perp_neg = not prior.has_camera and settings.view_prompts == "perp-neg"
    b = settings.views * (4 if perp_neg else 2)
    together = settings.views if prior.has_camera else 1
    unet: Any = prior.networks.unet
    text: Any = task.text
    return _evaluation(unet, b, len(text.plain), together)


@cache
def _evaluation(unet: UNet, b: int, tokens: int, together: int) -> float:
    """Operations of a UNet for b samples, of which `together` attend to one another."""
    c = unet.config
    x = jnp.zeros((b, c.sample_size, c.sample_size, c.in_channels))
    text = jnp.zeros((b, tokens, c.cross_attention_dim))
    camera = None if c.camera_dim is None else jnp.zeros((b, c.camera_dim))

    def forward(params, x, t, text, camera):
        return unet.apply({"params": params}, x, t, text, camera, together)

    return operations(forward, unet_param_shapes(unet), x, jnp.zeros(b), text, camera)


def _recipe(task: Task) -> Recipe:
    prior = dataclasses.replace(task.prior, params=None)
    return Recipe(task.scene, prior, task.method, task.settings)


def _start(task: Task, recipe: Recipe, n: int, mesh, filled: bool = True):
    """States of n seeds before their first step, and what they share, on the mesh."""
    states = initial_states(task, list(range(n)))
    states, shared = loop.place(mesh, states, Shared(task.prior.params, task.text))
    fill = make_cache(recipe)
    if fill is not None and filled:
        states = jax.jit(jax.vmap(fill, (0, None)))(states, shared)
    return states, shared
