"""What a person sees while a run goes on: one progress bar, a contact sheet, TensorBoard curves."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.metrics.judge import ELEVATION_DEG
from dsd_jax.optimization import hosts
from dsd_jax.optimization.loop import Progress
from dsd_jax.optimization.presets import Settings
from dsd_jax.optimization.preview import make_camerawork, shoot
from dsd_jax.optimization.seeds import unpadded
from dsd_jax.rendering.scene import Scene

PREVIEW_AZIMUTHS_DEG = (30.0, 150.0, 270.0)
SHEET = "seeds.png"


class Reporter:
    """Use as a context manager around one run; `watch` gives the callback of one chunk.

    Of several processes the first one reports.
    """

    def __init__(
        self, run: Path, chunks: list[list[int]], scene: Scene, settings: Settings, mesh: Mesh
    ):
        from tensorboardX import SummaryWriter

        self._run, self._chunks, self._settings = run, chunks, settings
        self._bar, self._task = _progress_bar(len(chunks) * settings.steps)
        self._board = SummaryWriter(str(run), write_to_disk=hosts.is_first())
        self._camerawork = make_camerawork(
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
        self._board.close()

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
            self._record(chunk, progress)
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

    def _record(self, chunk: list[int], progress: Progress) -> None:
        """Curves, and the latest metrics of each seed."""
        n = unpadded(chunk)
        for name, values in progress.metrics.items():
            self._board.add_scalar(name, float(np.mean(values[:n])), progress.done)
            for seed, value in zip(chunk[:n], values, strict=False):
                self.latest.setdefault(seed, {})[name] = float(value)
        for seed in chunk[:n]:
            self._board.add_scalar(
                f"loss/seed_{seed:04d}", self.latest[seed]["loss"], progress.done
            )

    def _show(self, index: int, progress: Progress) -> None:
        done = index * self._settings.steps + progress.done
        loss = float(np.mean(progress.metrics["loss"]))
        rate = 1.0 / progress.seconds_per_step
        text = "optimising"
        if len(self._chunks) > 1:
            text += f" chunk {index + 1} of {len(self._chunks)}"
        self._bar.update(
            self._task, completed=done, description=text, loss=f"loss {loss:.4g}",
            rate=f"{rate:.2f} it/s",
        )  # fmt: skip

    def _draw(self, chunk: list[int], progress: Progress) -> None:
        """Refresh the contact sheet with this chunk's seeds, the first process's of them."""
        pictures = shoot(
            self._camerawork, progress.states, PREVIEW_AZIMUTHS_DEG, ELEVATION_DEG, self._settings
        )
        if hosts.is_first():
            seeds = chunk[: min(unpadded(chunk), len(pictures))]
            sheet = contact_sheet(pictures[: len(seeds)], labels(seeds), tile=128)
            save_png(self._run / SHEET, sheet)
        self._sheet_at = hosts.clock()


def labels(seeds: list[int]) -> list[str]:
    """Column titles of a contact sheet."""
    return [f"seed {seed}" for seed in seeds]


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
