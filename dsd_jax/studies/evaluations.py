"""How often a run asks the network: the run itself, with a prior that does nothing but count.

One evaluation is one picture (a latent) that goes through the network once. A guided prediction
takes two, with the prompt and without it, or four by Perp-Neg; each for every view.
"""

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from dsd_jax import ode
from dsd_jax.distillation import Given
from dsd_jax.engine.task import Task
from dsd_jax.guidance import DenoiserAt, classifier_free, perp_neg
from dsd_jax.ode import Denoiser
from dsd_jax.priors.base import Defaults, Viewpoint
from dsd_jax.recipe import kept_ode, targets
from dsd_jax.recipe.recipe import changed
from dsd_jax.schedule import NoiseSchedule
from dsd_jax.studies.free import ImageTask

# Pictures or points of an image task: what is counted.
Run = Callable[[ImageTask], Any]


@struct.dataclass
class CountingPrior(Defaults):
    """A prior of latents of one number that asks its network as another prior does.

    Attributes:
        schedule: of that prior.
        samples: its `samples_per_prediction`.
        on_call: told how many pictures go through the network, at every call.
    """

    schedule: NoiseSchedule
    samples: int = struct.field(pytree_node=False, default=2)
    on_call: Callable[[int], None] = struct.field(pytree_node=False, default=lambda pictures: None)
    params: Any = None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return 1, 1, 1

    @property
    def image_size(self) -> int:
        return 1

    def encode(self, params, image):
        return jnp.zeros((1, 1, 1))

    def decode(self, params, x):
        return jnp.zeros((1, 1, 3))

    def condition(self, told, *, negative_prompt="", view_prompts="perp-neg"):
        return jnp.zeros(())

    def denoiser_at(self, params, condition, viewpoints: Viewpoint) -> DenoiserAt:
        """Guided as that prior is; the parameters are an adapter's, or None."""
        pushed = self.samples - 2
        network = partial(self._network, params)
        if not pushed:
            return classifier_free(network, condition, condition)
        negatives = jnp.broadcast_to(condition, (pushed, *condition.shape))
        return perp_neg(network, condition, condition, negatives, jnp.zeros(pushed))

    def prediction_at(self, params, condition, viewpoints: Viewpoint) -> Denoiser:
        """One picture a view."""
        return classifier_free(partial(self._network, params), condition, condition)(1.0)

    def _network(self, params, x, t, conditioning):
        jax.debug.callback(partial(self.on_call, math.prod(x.shape[:-3])))
        return 0.1 * x + (0.0 if params is None else params)

    def init_adapter(self, key, params, rank):
        return jnp.zeros(())

    def adapt(self, params, adapter):
        return adapter


def in_3d(task: Task, run: Run) -> int:
    """Evaluations of the same steps in 3D, all views, and of the refinement behind them.

    Where the ODE is kept, building it is included. The arguments are those of `count`.
    """
    recipe, views = task.recipe, task.recipe.camera.views

    def predict(image: ImageTask):
        scale = image.recipe.method.guidance_scale
        return image.denoiser_at(image.shared)(scale)(jnp.zeros(image.prior.latent_shape), 1)

    asked = targets.predictions(task.prior, recipe)
    if not recipe.keeps_ode:
        return views * count(task, run) + (asked * count(task, predict) if asked else 0)
    nothing = jnp.zeros((1, 1, 1))
    kept = Given(ode_at=lambda t: ode.Point(nothing, nothing, nothing))
    steps = views * count(task, lambda image: run(image._replace(given=kept)))
    asked += kept_ode.predictions(task.prior, task.condition, recipe)
    asked += views * recipe.steps if recipe.ode.kind == "nodes" else 0
    return steps + asked * count(task, predict)


def count(task: Task, run: Run) -> int:
    """Evaluations of `run`, which is given the task in one view, and less than a prior to ask.

    For a random t' (DSD) they are those of the seed that `run` takes.
    """
    calls, lock = [], threading.Lock()

    def on_call(pictures: int) -> None:
        with lock:
            calls.append(pictures)

    samples = task.prior.samples_per_prediction(task.condition)
    prior: Any = CountingPrior(task.prior.schedule, samples, on_call)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        told = prior.condition("")
        recipe = changed(task.recipe, views=1)
        counted = Task(prior, recipe, "", told, None if task.negative is None else told)
        jax.block_until_ready(run(ImageTask(counted)))
        jax.effects_barrier()
    return sum(calls)
