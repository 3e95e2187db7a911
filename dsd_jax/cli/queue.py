"""Several runs one after the other, with one prior and one compiled step."""

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

import jax
from jax.sharding import Mesh

from dsd_jax.cli import complete
from dsd_jax.cli.job import Job, begin, code_of, run
from dsd_jax.cli.program import BAD_INPUT, FAILED
from dsd_jax.engine import hosts
from dsd_jax.engine.generate import CompiledPhases, make_blocks
from dsd_jax.engine.lost import LOST
from dsd_jax.engine.task import Task
from dsd_jax.export.overview import PAGE, Row, write_overview
from dsd_jax.files import OLD_SECONDS, elided, shortened, sweep

# Exit codes beyond are of what a signal ended.
SIGNALLED = 128


def run_all(out: Path, jobs: Mapping[str, Callable[[], Job]], task: Task, began: float) -> int:
    """Run what is not complete yet; returns the exit code.

    What fails does not stop the others: it is named at once, in the overview and at the end.

    Args:
        out: where overview.html and overview.json go, which tell of every run as it ends.
        jobs: what makes the job of each title; it may raise ValueError with one line for the user.
        task: of any of them; they differ in what the prior is told alone.
        began: see `job.run`.
    """
    blocks = cache(partial(make_blocks, task))
    rows = {title: Row(title) for title in jobs}
    if hosts.is_first():
        sweep(out, OLD_SECONDS, below=False)
    for title, make in jobs.items():
        code, rows[title] = _run(rows[title], make, blocks, began)
        if hosts.is_first():
            write_overview(out, list(rows.values()))
        if code > SIGNALLED:
            return code
        began = time.monotonic()
    failed = [shortened(row.title, 80) for row in rows.values() if row.state == "failed"]
    if hosts.is_first():
        said = f"{len(rows) - len(failed)} of {len(rows)} are complete"
        print(elided(f"{said}; failed: {', '.join(failed)}" if failed else said), file=sys.stderr)
        print(out / PAGE)
    return FAILED if failed else LOST if any(row.error for row in rows.values()) else 0


def _run(
    row: Row, make: Callable[[], Job], blocks: Callable[[Mesh], CompiledPhases], began: float
) -> tuple[int, Row]:
    """The exit code of one run, 0 where it failed, and what became of it."""
    try:
        job = make()
        row = row._replace(folder=job.folder)
        plan = begin(job)
    except (ValueError, OSError) as error:
        return 0, _failed(row, error)
    try:
        code = run(job, plan, began, blocks) if plan else code_of(job)
    except Exception as error:
        if jax.process_count() > 1:
            raise  # else the other processes would wait for this one
        traceback.print_exc()
        return 0, _failed(row, error)
    if code > SIGNALLED:
        return code, row._replace(state="interrupted")
    if code in (FAILED, BAD_INPUT):
        return 0, row._replace(state="failed", error="see what was said above")
    lost = ", ".join(map(str, complete.lost_seeds(job.folder))) if code == LOST else ""
    return code, row._replace(state="complete", error=lost and f"lost seeds: {lost}")


def _failed(row: Row, error: Exception) -> Row:
    said = elided(error) or type(error).__name__
    print(f"error: {shortened(row.title, 80)}: {said}", file=sys.stderr)
    return row._replace(state="failed", error=said)
