"""Work of whole steps, with the seed's ODE followed or kept. Letters: n seeds, b batch."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.engine.device_mesh import place, seed_mesh
from dsd_jax.engine.generate import initial_states, make_blocks
from dsd_jax.engine.task import Task
from dsd_jax.models.networks import unet_param_shapes
from dsd_jax.models.unet import UNet
from dsd_jax.recipe import kept_ode
from dsd_jax.recipe.recipe import changed
from dsd_jax.recipe.step import make_fill, make_step

from .work import Ready, operations, size_of


def with_ode(task: Task, mode: str) -> Task:
    """The same task with another `OdeSettings.kind`."""
    return task._replace(recipe=changed(task.recipe, **{"ode.kind": mode}))


def iteration(task: Task, n: int) -> Ready:
    """All steps of n seeds, t falling from its first value to its last. Units are seed-steps.

    Operations: those of a step, in which XLA counts the body of the ODE's loop once, and an
    evaluation for each further turn of that loop which the seed's own t' asks for.
    """
    prior, recipe, steps, mesh = task.prior, task.recipe, task.recipe.steps, seed_mesh(n)
    initial, shared = _start(task, n, mesh)
    block = make_blocks(task, mesh)[0][1]
    again = jax.jit(partial(jax.tree.map, jnp.copy))

    states, turns = again(initial), []
    for i in range(steps):
        states, metrics = block(states, i, i + 1, shared)
        turns.append(jax.device_get(metrics["t_prime"]))
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), initial)
    per_step = operations(make_step(prior, recipe), one, jax.eval_shape(lambda: shared))
    if recipe.ode.kind == "exact":
        grid = np.array(recipe.method.ode_grid(prior.schedule))
        extra = np.mean(np.sum(grid > np.array(turns)[..., None], -1))
        per_step += extra * evaluation(task)
    moved = 2 * size_of(one) + size_of(shared) / n

    def call():
        return block(again(initial), 0, steps, shared)

    return Ready(call, per_step, moved, steps * n)


def keep(task: Task, n: int) -> Ready:
    """The ODE kept for n seeds, once for all their steps. Units are seeds."""
    prior, recipe = task.prior, task.recipe
    fill = make_fill(prior, recipe)
    assert fill is not None
    states, shared = _start(task, n, seed_mesh(n), filled=False)
    keep = jax.jit(jax.vmap(lambda state, shared: fill(state, shared).ode, (0, None)))
    kept = jax.block_until_ready(keep(states, shared))
    viewpoints = kept_ode.centres(prior, task.condition, recipe).azimuth
    evaluations = len(kept_ode.node_times(recipe, prior.schedule))
    if recipe.ode.kind == "table":
        evaluations += len(kept_ode.times_of(recipe, prior.schedule))
    together = 1 if viewpoints.ndim > 1 else recipe.camera.views
    needed = len(viewpoints) * evaluations * evaluation(task) / together
    return Ready(lambda: keep(states, shared), needed, size_of(kept) / n, n)


def evaluation(task: Task) -> float:
    """Operations of a guided prediction for all views of a step."""
    prior, views = task.prior, task.recipe.camera.views
    b = views * prior.samples_per_prediction(task.condition)
    together = views if prior.denoises_together else 1
    return _evaluation(prior.networks.unet, b, len(task.condition.plain), together)


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


def _start(task: Task, n: int, mesh, filled: bool = True):
    """States of n seeds before their first step, and what they share, on the mesh."""
    states, shared = place(mesh, initial_states(task, list(range(n))), task.shared)
    fill = make_fill(task.prior, task.recipe)
    if fill is not None and filled:
        states = jax.jit(jax.vmap(fill, (0, None)))(states, shared)
    return states, shared
