"""What a person sees while a run goes on: one progress bar and a contact sheet; and its logs."""

from pathlib import Path

import numpy as np

from dsd_jax.cli.logs import Log
from dsd_jax.engine import hosts
from dsd_jax.engine.loop import Progress
from dsd_jax.engine.picture_scores import shown_on_grey
from dsd_jax.engine.plan import Plan
from dsd_jax.engine.progress import Bar
from dsd_jax.engine.seed_views import seed_renderer, shoot
from dsd_jax.engine.seeds import unpadded
from dsd_jax.engine.task import Task
from dsd_jax.export.pictures import save_png, seeds_sheet
from dsd_jax.export.run_folder import SHEET
from dsd_jax.rendering.cameras import ELEVATION_DEG

PREVIEW_AZIMUTHS_DEG = (30.0, 150.0, 270.0)
TILE = 128


class Reporter(Bar):
    """A `Bar` that also writes the logs and refreshes the contact sheet.

    Attributes:
        renderer: what draws the contact sheet.
    """

    def __init__(self, run: Path, plan: Plan, task: Task, log: Log):
        super().__init__(plan, task.recipe)
        self._run, self._log = run, log
        size, samples = task.recipe.results.preview_resolution, task.recipe.render.samples
        self.renderer = seed_renderer(task.recipe.scene, size, samples, plan.device_mesh)
        picture = task.reference
        self._beside = (
            None if picture is None else shown_on_grey(picture.rgb, picture.mask, task.recipe)
        )
        self._sheet_at = hosts.clock()

    def on_block(self, chunk: list[int], progress: Progress) -> None:
        """`Watch.on_block`."""
        metrics = {
            seed: {name: float(values[i]) for name, values in progress.metrics.items()}
            for i, seed in enumerate(chunk[: unpadded(chunk)])
            if np.isfinite(progress.metrics["loss"][i])  # else it has diverged
        }
        if metrics:
            self._log(metrics, progress.done, self.steps_of(chunk, progress))
        super().on_block(chunk, progress)
        if hosts.clock() - self._sheet_at > self._recipe.results.preview_seconds:
            self._draw(chunk, progress)

    def _draw(self, chunk: list[int], progress: Progress) -> None:
        """Refresh the contact sheet with this chunk's seeds, the first process's of them."""
        places = PREVIEW_AZIMUTHS_DEG, ELEVATION_DEG
        pictures = shoot(self.renderer, progress.states, *places, self._recipe)
        if hosts.is_first():
            seeds = chunk[: min(unpadded(chunk), len(pictures))]
            sheet = seeds_sheet(pictures[: len(seeds)], seeds, TILE, self._beside)
            save_png(self._run / SHEET, sheet)
        self._sheet_at = hosts.clock()
