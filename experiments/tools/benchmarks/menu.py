"""All that is measured: how much of everything, and of which model."""

import re
from functools import partial
from typing import Any, NamedTuple

from dsd_jax.engine.task import Task
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.priors.view_words import VIEWS, Text
from dsd_jax.recipe.presets import PRESETS
from dsd_jax.recipe.recipe import changed

from .fields import grids, render
from .networks import unet, vae
from .steps import iteration, keep, with_ode
from .work import Work, normal, plural

PRESET = {"toybox": "standard", "sd21-base": "authors"}
# How `work.plural` writes a number of seeds.
NUMBER = re.compile(r"(\d+) seeds?")
NAMES = ("unet", "vae", "grid", "render", "cache", "iteration")


class Sizes(NamedTuple):
    """How much of everything.

    Attributes:
        matrix: side of the matrices multiplied.
        copied: float32 numbers copied.
        unet, vae: batches, by model.
        points: looked up in the hash grid.
        steps: of a seed that are timed, the whole schedule of t on them.
        changes: of the recipe.
    """

    matrix: int
    copied: int
    unet: dict[str, tuple[int, ...]]
    vae: dict[str, tuple[int, ...]]
    points: int
    steps: int
    changes: dict[str, Any]


_UNET = {"toybox": (8, 32, 128), "sd21-base": (4, 8, 16, 64)}
ACCELERATOR = Sizes(
    8192, 2**28, _UNET, {"toybox": (4, 64), "sd21-base": (1, 8)}, 2**20, 16, {}
)  # fmt: skip
CPU = Sizes(
    1024, 2**25, {"toybox": (8, 32), "sd21-base": (4,)}, {"toybox": (4,), "sd21-base": (1,)},
    2**16, 8, {},
)  # fmt: skip
MINIATURE = Sizes(
    64, 2**10, {"toybox": (1, 2), "sd21-base": (2,)}, {"toybox": (1,), "sd21-base": (1,)},
    2**8, 2,
    {"resolution": 8, "late_resolution": 8, "samples": 4, "levels": 2, "start_levels": 2,
     "log2_entries": 10, "base_resolution": 4, "width": 8, "occupancy_resolution": 4,
     "ode_points": 3, "table_points": 3, "azimuth_bins": 4, "convexity": 0.0},
)  # fmt: skip


def make_task(prior: Prior, model: str, sizes: Sizes) -> Task:
    """The model's preset, with a schedule of `sizes.steps` steps and a random prompt."""
    recipe = changed(PRESETS[PRESET[model]], steps=sizes.steps, **sizes.changes)
    encoder = prior.networks.text_encoder.config
    words = normal(2, (len(VIEWS) + 2, encoder.max_position_embeddings, encoder.hidden_size))
    text = Text(words[0], words[1:-1], words[-1], recipe.condition.view_prompts)
    return Task(prior, recipe, model, text)


def works(task: Task, model: str, sizes: Sizes, seeds, modes) -> dict[str, list[Work]]:
    """Everything that is measured of a model, by the names of --only."""
    prior: Any = task.prior
    cached = [mode for mode in modes if mode != "exact"]
    return {
        "unet": [Work("unet forward", f"batch {b}", partial(unet, prior, b))
                 for b in sizes.unet[model]],
        "vae": [Work(f"vae encoder {name}", f"batch {b}", partial(vae, prior, b, pulled))
                for b in sizes.vae[model]
                for name, pulled in (("forward", False), ("forward + backward", True))],
        "grid": list(grids(task.recipe, sizes.points, seeds)),
        "render": [Work(f"render {name}", plural(n), partial(render, task, n, pulled))
                   for n in seeds
                   for name, pulled in (("forward", False), ("forward + backward", True))],
        "cache": [Work(f"ode kept as {mode}", plural(n), partial(keep, with_ode(task, mode), n))
                  for mode in cached for n in seeds],
        "iteration": [Work(f"seed-iteration, ode {mode}", plural(n),
                           partial(iteration, with_ode(task, mode), n))
                      for mode in modes for n in seeds],
    }  # fmt: skip
