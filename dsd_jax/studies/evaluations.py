"""How often a run asks the UNet: the run itself, with a prior whose network does nothing but count.

One evaluation is one picture (a latent) that goes through the UNet once. A guided prediction takes
two, with the prompt and without it, or four by Perp-Neg; each for every view.
"""

import dataclasses
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from dsd_jax.distillation.common import Method
from dsd_jax.guidance import Network
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.recipe import kept_ode
from dsd_jax.recipe.presets import Settings
from dsd_jax.studies.images2d import Task, denoiser_at, make_task


@struct.dataclass
class CountingPrior(Prior):
    """A prior of the same kind, with latents of one number.

    Attributes:
        on_call: told how many pictures go through the network, at every call.
    """

    on_call: Callable[[int], None] = struct.field(pytree_node=False, default=lambda pictures: None)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return 1, 1, 1

    def decode(self, params, x):
        return jnp.zeros((1, 1, 3))

    def encode_prompt(self, params, prompts):
        return jnp.zeros((len(prompts), 1, 1))

    def init_adapter(self, key, params, rank):
        return jnp.zeros(())

    def adapt(self, params, adapter):
        return adapter

    def network(self, params, num_views: int = 1) -> Network:
        """As `Prior.network`; the parameters are an adapter's, or None."""

        def network(x, t, conditioning):
            jax.debug.callback(partial(self.on_call, len(x) * num_views))
            return 0.1 * x + (0.0 if params is None else params)

        return network


def in_3d(prior: Prior, method: Method, settings: Settings, run: Callable[[Task], Any]) -> int:
    """Evaluations of the same steps in 3D, all views; where the ODE is kept, building it included.

    The arguments are those of `count`.
    """
    if not kept_ode.is_used(method, settings):
        return settings.views * count(prior, method, settings, run)

    def predict(task):
        x = jnp.zeros(task.prior.latent_shape)
        return denoiser_at(task, task.shared)(settings.guidance_scale)(x, 1)

    kept = method._replace(gradient=partial(method.gradient, eps_at=lambda t: jnp.zeros((1, 1, 1))))
    steps = settings.views * count(prior, kept, settings, run)
    asked = kept_ode.predictions(prior, settings)
    asked += settings.views * settings.steps if settings.ode == "nodes" else 0
    return steps + asked * count(prior, method, settings, predict)


def count(prior: Prior, method: Method, settings: Settings, run: Callable[[Task], Any]) -> int:
    """Evaluations of `run`, which is given a 2D task, with a method and settings, in one view.

    For a random t' (DSD) they are those of the seed that `run` takes.
    """
    calls, lock = [], threading.Lock()
    settings = dataclasses.replace(settings, views=1)

    def on_call(pictures: int) -> None:
        with lock:
            calls.append(pictures)

    fake = CountingPrior(None, prior.schedule, prior.networks, prior.folder, on_call=on_call)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        task = make_task(fake, "", method, settings, 0.0, 0.0, "latents")
        jax.block_until_ready(run(task))
        jax.effects_barrier()
    return sum(calls)
