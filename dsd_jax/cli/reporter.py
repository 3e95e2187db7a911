"""What a person sees while a run goes on: one progress bar and a contact sheet; and its logs."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from dsd_jax.cli.logs import Log
from dsd_jax.engine import hosts
from dsd_jax.engine.loop import Progress
from dsd_jax.engine.seed_views import make_camerawork, shoot
from dsd_jax.engine.seeds import unpadded
from dsd_jax.export.pictures import PAPER, contact_sheet, save_png
from dsd_jax.metrics.judge import ELEVATION_DEG
from dsd_jax.recipe.presets import Settings
from dsd_jax.rendering.scene import Scene

PREVIEW_AZIMUTHS_DEG = (30.0, 150.0, 270.0)
SHEET = "seeds.png"


class Reporter:
    """Use as a context manager around one run; `watch` gives the callback of one chunk.

    Of several processes the first one reports.

    Attributes:
        camerawork: what draws the contact sheet.
        latest: the last metrics of each seed.
    """

    def __init__(
        self,
        run: Path,
        chunks: list[list[int]],
        scene: Scene,
        settings: Settings,
        mesh: Mesh,
        log: Log,
        beside: UInt8[np.ndarray, "h w 3"] | None = None,
    ):
        self._run, self._chunks, self._settings = run, chunks, settings
        self._log, self._beside = log, beside
        self._bar, self._task = _progress_bar(len(chunks) * settings.steps)
        self.camerawork = make_camerawork(
            scene, settings.preview_resolution, settings.samples, mesh
        )
        self._sheet_at = hosts.clock()
        self._timed_steps, self._timed_seconds = 0, 0.0
        self.latest: dict[int, dict[str, float]] = {}

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    @property
    def steps_per_second(self) -> float | None:
        """Steps of a chunk a second, compilation left out; None before the second block."""
        return self._timed_steps / self._timed_seconds if self._timed_seconds else None

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def watch(self, index: int) -> Callable[[Progress], None]:
        """The callback for blocks of chunk `index`."""
        chunk, before = self._chunks[index], None

        def on_block(progress: Progress) -> None:
            nonlocal before
            steps = progress.done - (progress.done if before is None else before)
            before = progress.done
            self._timed_steps += steps
            self._timed_seconds += steps * progress.seconds_per_step
            self._record(index, progress)
            self._show(index, progress)
            if hosts.clock() - self._sheet_at > self._settings.preview_seconds:
                self._draw(chunk, progress)

        return on_block

    def count(self, description: str, total: int) -> Callable[[], None]:
        """Turn the bar to another job of `total` parts; returns what to call after each."""
        self._bar.update(
            self._task, description=description, completed=0, total=total, loss="", rate=""
        )
        return lambda: self._bar.advance(self._task)

    def describe(self, text: str) -> None:
        """What is being done, at the left of the bar."""
        self._bar.update(self._task, description=text)

    def _record(self, index: int, progress: Progress) -> None:
        """Logs, and the latest metrics of each seed."""
        chunk, metrics = self._chunks[index], {}
        for i, seed in enumerate(chunk[: unpadded(chunk)]):
            metrics[seed] = {name: float(values[i]) for name, values in progress.metrics.items()}
            self.latest.setdefault(seed, {}).update(metrics[seed])
        self._log(metrics, progress.done, self._steps(index, progress))

    def _steps(self, index: int, progress: Progress) -> int:
        """Steps that this chunk and those before it have done."""
        return index * self._settings.steps + progress.done

    def _show(self, index: int, progress: Progress) -> None:
        loss = float(np.mean(progress.metrics["loss"]))
        rate = 1.0 / progress.seconds_per_step
        text = "optimising"
        if len(self._chunks) > 1:
            text += f" chunk {index + 1} of {len(self._chunks)}"
        self._bar.update(
            self._task, completed=self._steps(index, progress), description=text,
            loss=f"loss {loss:.4g}", rate=f"{rate:.2f} it/s",
        )  # fmt: skip

    def _draw(self, chunk: list[int], progress: Progress) -> None:
        """Refresh the contact sheet with this chunk's seeds, the first process's of them."""
        pictures = shoot(
            self.camerawork, progress.states, PREVIEW_AZIMUTHS_DEG, ELEVATION_DEG, self._settings
        )
        if hosts.is_first():
            seeds = chunk[: min(unpadded(chunk), len(pictures))]
            sheet = seeds_sheet(pictures[: len(seeds)], seeds, 128, self._beside)
            save_png(self._run / SHEET, sheet)
        self._sheet_at = hosts.clock()


def seeds_sheet(
    views: UInt8[np.ndarray, "n v h w 3"],
    seeds: list[int],
    tile: int,
    beside: UInt8[np.ndarray, "height width 3"] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """A contact sheet: a column a seed, and before them the picture that they were made from.

    Args:
        tile: side of a tile in pixels.
        beside: that picture, if there is one.
    """
    labels = [f"seed {seed}" for seed in seeds]
    if beside is None:
        return contact_sheet(views, labels, tile)
    from PIL import Image

    _, v, h, w, _ = views.shape
    column = np.full((1, v, h, w, 3), PAPER, np.uint8)
    column[0, 0] = np.asarray(Image.fromarray(beside).resize((w, h)))
    return contact_sheet(np.concatenate([column, views]), ["input", *labels], tile)


def _progress_bar(total: int):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("ETA"),
        Remaining(),
        console=Console(file=sys.stderr, quiet=not hosts.is_first()),
    )
    return bar, bar.add_task("compiling ...", total=total, loss="", rate="")
