"""How far a run is: a bar in a terminal and in a notebook, elsewhere a plain line now and then."""

import sys
import time
from collections.abc import Callable
from typing import Self

import numpy as np

from dsd_jax.engine import hosts
from dsd_jax.engine.loop import Progress
from dsd_jax.engine.plan import Plan
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.state import State

PLAIN_SECONDS = 10.0


class Bar:
    """Use as a context manager around one run. Of several processes the first one's is seen.

    Args:
        hidden: show nothing.
    """

    def __init__(self, plan: Plan, recipe: Recipe, hidden: bool = False):
        from rich.console import Console

        self._chunks, self._recipe = plan.chunks, recipe
        quiet = hidden or not hosts.is_first()
        self._console = Console(file=sys.stderr, quiet=quiet)
        self._live = self._console.is_terminal or self._console.is_jupyter
        self._bar, self._task = _rich_bar(self._console, len(plan.chunks) * recipe.total_steps)
        self._began = self._said_at = time.monotonic()
        self._timed_steps, self._timed_seconds, self._before = 0, 0.0, {}
        self._description = ""

    def __enter__(self) -> Self:
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._bar.stop()

    @property
    def steps_per_second(self) -> float | None:
        """Steps of a chunk a second, compilation left out; None before the second block."""
        return self._timed_steps / self._timed_seconds if self._timed_seconds else None

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=not self._live)

    def describe(self, text: str) -> None:
        """What is being done, at the left of the bar."""
        self._description = text
        self._bar.update(self._task, description=text)

    def count(self, description: str, total: int) -> Callable[[], None]:
        """Turn the bar to another job of `total` parts; returns what to call after each."""
        self.describe(description)
        self._bar.update(self._task, completed=0, total=total, loss="", rate="")

        def one_more() -> None:
            self._bar.advance(self._task)
            self._plain(description)

        return one_more

    def on_phase(self, states: State) -> None:
        """`Watch.on_phase`."""
        self.describe("compiling ...")

    def on_block(self, chunk: list[int], progress: Progress) -> None:
        """`Watch.on_block`."""
        index = self._chunks.index(chunk)
        steps = progress.done - self._before.get(index, progress.done)
        self._before[index] = progress.done
        self._timed_steps += steps
        self._timed_seconds += steps * progress.seconds_per_step
        text = self._what(progress.done)
        if len(self._chunks) > 1:
            text += f" chunk {index + 1} of {len(self._chunks)}"
        loss = f"loss {_mean_of_finite(progress.metrics['loss']):.4g}"
        rate = f"{1.0 / progress.seconds_per_step:.2f} it/s"
        done = self.steps_of(chunk, progress)
        self._bar.update(self._task, completed=done, description=text, loss=loss, rate=rate)
        self._plain(text, f", {loss}, {rate}")

    def _what(self, done: int) -> str:
        """What the last step was."""
        refine, beyond = self._recipe.refine, done - self._recipe.steps
        if beyond <= 0:
            return "optimising"
        return f"refining, round {-(-beyond // refine.fit_steps)} of {refine.rounds}"

    def steps_of(self, chunk: list[int], progress: Progress) -> int:
        """Steps that this chunk and those before it have done."""
        return self._chunks.index(chunk) * self._recipe.total_steps + progress.done

    def _plain(self, text: str, more: str = "") -> None:
        """Where there is no bar to be seen, a line every `PLAIN_SECONDS` and at the end."""
        task, now = self._bar.tasks[0], time.monotonic()
        ended = task.completed == task.total
        if self._live or not (ended or now - self._said_at >= PLAIN_SECONDS):
            return
        self._said_at = now
        done = f"{task.completed:.0f} of {task.total:.0f}"
        self.say(f"{text}: {done}{more}, {now - self._began:.0f} s")


def _mean_of_finite(values) -> float:
    """The mean over those seeds that have not diverged; nan where none is left."""
    values = np.asarray(values)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


def _rich_bar(console, total: int):
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
        console=console,
    )
    return bar, bar.add_task("compiling ...", total=total, loss="", rate="")
