"""The page of `dsd app`: what a visitor sees of jobs and runs, and the same over HTTP.

page = make(jobs, Offer(), Path("runs"), cache)
page.launch(**settings(Path("runs")))

Needs gradio (extra `app`).
"""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]

from dsd_jax.cli import app_runs
from dsd_jax.cli.app_jobs import FAILED, RUNNING, STOPPING, WAITING, Job, Jobs
from dsd_jax.cli.app_wish import LETTERS, PICTURE_BYTES, Offer, Wish, words_of
from dsd_jax.distillation import METHODS
from dsd_jax.export.gallery import facts_of

# Between two looks at a job.
SECONDS = 1.0
_FONTS = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
# Nothing is asked of other machines, by the server or by the visitor's browser.
_SETTINGS: dict[str, Any] = {
    "prevent_thread_lock": True, "share": False, "quiet": True, "show_error": True,
    "ssr_mode": False, "pwa": False, "enable_monitoring": False,
    "max_file_size": PICTURE_BYTES, "footer_links": ["api"],
    "theme": gr.themes.Base(primary_hue="orange", font=_FONTS[0], font_mono=_FONTS[1]),
}  # fmt: skip
# What a run says of its memory, which is long.
_MEMORY = re.compile(r" memory: .*?;")


class Handlers:
    """What the page's events call. They take anything, and raise gr.Error with one line."""

    def __init__(self, jobs: Jobs, offer: Offer, out: Path, cache: Path):
        """
        Args:
            cache: folder for copies of what is shown: nothing is served from `out` itself.
        """
        self._jobs, self._offer, self._out, self._cache = jobs, offer, out, cache

    async def grow(
        self, prompt: Any, picture: Any = None, seeds: Any = 4, first: Any = 0,
        method: Any = "dsd", preset: Any = "quick",
    ) -> AsyncIterator[tuple[Any, ...]]:  # fmt: skip
        """What a job says, its contact sheet, its run's name and itself, whenever one changes."""
        wish = Wish(prompt, picture, seeds, first, method, preset)
        try:
            words = await asyncio.to_thread(words_of, wish, self._offer, self._out)
            job = self._jobs.add(words)
        except ValueError as error:
            raise _refusal(error) from None
        shown = None
        while True:
            ended = job.ended
            now = (self._said(job), self._sheet(job.run), job.run, job)
            if now != shown:
                yield now
            if ended:
                break
            shown = now
            await asyncio.sleep(SECONDS)
        if job.state == FAILED:
            raise gr.Error(job.said.removeprefix("error: "), print_exception=False)

    def cancel(self, job: Job | None) -> None:
        """End a visitor's own job."""
        if isinstance(job, Job):
            self._jobs.cancel(job)

    def runs(self) -> Any:
        """The list of runs, anew."""
        return gr.update(choices=[(run.label, run.name) for run in app_runs.runs_of(self._out)])

    def open_run(self, name: Any) -> tuple[Any, ...]:
        """What is known of a run, its contact sheet, its seeds, and the first of them."""
        run = self._run(name)
        seeds = [str(seed) for seed in run.seeds]
        first = seeds[0] if seeds else ""
        choice = gr.update(choices=seeds, value=first or None, visible=bool(seeds))
        return run.label, self._sheet(run.name), choice, first

    def open_seed(self, name: Any, seed: Any) -> tuple[Any, ...]:
        """A seed's model, its scores as rows, and its files; nothing where none is chosen."""
        if seed == "":
            return None, [], []
        run = self._run(name)
        try:
            files = app_runs.files_of(self._out, run, seed)
            rows = [list(row) for row in facts_of(self._out / run.name, int(seed))]
        except (ValueError, OSError) as error:
            raise _refusal(error) from None
        copies = {
            kind: self._copy(file, f"{run.name}_seed_{int(seed):04d}{file.suffix}")
            for kind, file in files.items()
        }
        return copies.get(app_runs.MODEL), rows, list(copies.values())

    def _run(self, name: Any) -> app_runs.Run:
        try:
            return app_runs.read(self._out, name)
        except (ValueError, OSError) as error:
            raise _refusal(error) from None

    def _said(self, job: Job) -> str:
        before = self._jobs.before(job)
        if job.state == WAITING and before:
            return f"waiting: {before} {'job' if before == 1 else 'jobs'} before yours"
        state = "growing" if job.state == RUNNING else job.state
        said = _MEMORY.sub("", job.said)
        state += " (Cancel once more ends it at once)" if job.state == STOPPING else ""
        return f"{state}: {said}" if said else f"{state} …"

    def _sheet(self, name: str) -> str | None:
        try:
            file = app_runs.sheet_of(self._out, app_runs.read(self._out, name)) if name else None
            return self._copy(file, f"{name}.png") if file else None
        except (ValueError, OSError):
            return None  # the run has not begun to write

    def _copy(self, file: Path, name: str) -> str:
        """A copy of a file as it is now, under a name that says what it is."""
        copy = self._cache / f"{file.stat().st_mtime_ns:x}" / name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        return str(copy)


def _refusal(error: Exception) -> gr.Error:
    return gr.Error(" ".join(str(error).split()), print_exception=False)


def settings(out: Path) -> dict[str, Any]:
    """How the page is launched, without a file of `out` itself being served."""
    return {**_SETTINGS, "blocked_paths": [str(out)]}


def make(jobs: Jobs, offer: Offer, out: Path, cache: Path) -> gr.Blocks:
    """The page. Its functions over HTTP are /grow, /cancel, /run and /seed."""
    do = Handlers(jobs, offer, out, cache)
    with gr.Blocks(title="dsd_jax", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown("# dsd_jax\nOne prompt, many different objects: a seed is one.")
        job = gr.State()
        name, number = (gr.Textbox(visible=False, label=label) for label in ("run", "seed"))
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                wish = _form(offer)
                with gr.Row():
                    grow = gr.Button("Grow", variant="primary")
                    cancel = gr.Button("Cancel", variant="stop")
                said = gr.Textbox(label="What is done", lines=2, interactive=False)
            sheet = gr.Image(
                label="A column a seed", elem_id="sheet", type="filepath", format="png",
                interactive=False, buttons=["download", "fullscreen"], height=560, scale=3,
            )  # fmt: skip
        listed = gr.Dropdown([], label="Runs", info="All of them stay; choose one to open it.")
        seed = gr.Radio([], label="Seed", visible=False)
        with gr.Row():
            model = gr.Model3D(
                label="Drag to turn", elem_id="model", height=460, interactive=False, scale=3
            )
            with gr.Column(scale=2, min_width=320):
                scores = gr.Dataframe(
                    headers=["score", "value"], column_count=2, label="Scores", interactive=False
                )
                files = gr.File(label="Downloads", file_count="multiple", interactive=False)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        free: dict[str, Any] = {"concurrency_limit": None, "show_progress": "minimal"}
        opened, shown = [said, sheet, seed, number], [model, scores, files]
        growing = gr.on(
            [grow.click, wish[0].submit], do.grow, wish, [said, sheet, name, job],
            api_name="grow", **free,
        )  # fmt: skip
        growing.then(do.runs, None, listed, **quiet)
        grown = growing.success(do.open_run, name, opened, **quiet)
        grown.then(do.open_seed, [name, number], shown, **quiet)
        cancel.click(do.cancel, job, None, api_name="cancel", **free)
        page.load(do.runs, None, listed, **quiet)
        listed.focus(do.runs, None, listed, **quiet)
        chosen = listed.input(_same, listed, name, **quiet)
        chosen = chosen.then(do.open_run, name, opened, api_name="run", **free)
        chosen.then(do.open_seed, [name, number], shown, **quiet)
        picked = seed.input(_same, seed, number, **quiet)
        picked.then(do.open_seed, [name, number], shown, api_name="seed", **free)
    return page


def _same(value: Any) -> Any:
    return value


def _form(offer: Offer) -> list[Any]:
    """The inputs, in the order of a `Wish`."""
    prompt = gr.Textbox(label="Prompt", placeholder="a house", max_length=LETTERS)
    with gr.Accordion("or a picture of one object", open=False):
        picture = gr.Image(
            type="filepath", image_mode=None, sources=["upload", "clipboard"], height=220,
            label="Cut out by its transparency, or from a plain background",
        )  # fmt: skip
    with gr.Row():
        seeds = gr.Slider(1, offer.seeds, min(4, offer.seeds), step=1, label="Seeds")
        first = gr.Number(0, label="The first one", precision=0, minimum=0)
    with gr.Row():
        method = gr.Dropdown(list(METHODS), value="dsd", label="Method")
        preset = gr.Dropdown(list(offer.presets), value=offer.presets[0], label="Preset")
    return [prompt, picture, seeds, first, method, preset]
