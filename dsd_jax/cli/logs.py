"""A run's numbers while it goes on: log.jsonl, TensorBoard and, if asked for, Weights & Biases.

log.jsonl has one line a report, of the seeds that run together, and is a program's to read:

    {"step": 37, "seconds": 12.5, "seeds": {"0": {"loss": 0.021, ...}, "1": {...}}}

`step` is that of these seeds. `seconds` are those spent in the run so far, loading left out.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from dsd_jax.engine import hosts
from dsd_jax.files import atomic_path, plain

LOG = "log.jsonl"
PROJECT = "dsd_jax"
# (metrics {seed: {name: value}}, step of these seeds, steps of all chunks so far) -> None
Log = Callable[[dict[int, dict[str, float]], int, int], None]


@contextmanager
def open_logs(
    run: Path, config: dict[str, Any], reached: Mapping[int, int], wandb: bool = False
) -> Iterator[Log]:
    """What adds a report to all logs of a run; of several processes the first one writes.

    Args:
        config: of the run.
        reached: steps from which each seed goes on; log.jsonl forgets later ones.
        wandb: also log to Weights & Biases, under the login that its package knows.
    """
    with ExitStack() as stack:
        logs: list[Log] = []
        if hosts.is_first():
            logs = [_lines(run / LOG, reached), stack.enter_context(_board(run))]
            if wandb:
                logs.append(stack.enter_context(_wandb(run, config)))

        def add(metrics, step, done):
            for log in logs:
                log(metrics, step, done)

        yield add


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a log.jsonl; what was cut off while being written, or damaged, is left out."""
    lines = []
    for text in Path(path).read_text("utf-8", "replace").splitlines():
        with suppress(ValueError, RecursionError):
            line = json.loads(text)
            if _is_report(line):
                lines.append(line)
    return lines


def _is_report(line: Any) -> bool:
    """Whether it is what `open_logs` writes."""
    if not isinstance(line, dict) or not isinstance(line.get("seeds"), dict):
        return False
    numbers = isinstance(line.get("step"), int) and isinstance(line.get("seconds"), float | int)
    return numbers and all(seed.isdecimal() for seed in line["seeds"])


def _lines(path: Path, reached: Mapping[int, int]) -> Log:
    kept = []
    for line in read_log(path) if path.is_file() else []:
        seeds = {k: v for k, v in line["seeds"].items() if line["step"] <= reached.get(int(k), 0)}
        kept += [line | {"seeds": seeds}] if seeds else []
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{json.dumps(line)}\n" for line in kept), "utf-8")
    began = time.monotonic() - (kept[-1]["seconds"] if kept else 0.0)

    def add(metrics, step, done):
        line = {"step": step, "seconds": round(time.monotonic() - began, 3), "seeds": metrics}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(line), allow_nan=False) + "\n")

    return add


@contextmanager
def _board(run: Path) -> Iterator[Log]:
    """By a thread of its own: where PyTorch is installed the writer's import takes seconds.

    The writer has a thread, too; what that cannot write is raised here.
    """
    boards, written, failed, usual = [], [], [], threading.excepthook

    def hook(about) -> None:
        failed.append(about.exc_value) if isinstance(about.exc_value, OSError) else usual(about)

    def write(metrics, step):
        from tensorboardX import SummaryWriter

        if not boards:
            boards.append(SummaryWriter(str(run)))
        for name, value in _curves(metrics).items():
            if failed:
                raise failed[0]
            boards[0].add_scalar(name, value, step)

    threading.excepthook = hook
    try:
        with ThreadPoolExecutor(1) as pool:
            yield lambda metrics, step, done: written.append(pool.submit(write, metrics, step))
        for one in written:
            one.result()
    finally:
        for board in boards:
            if not failed:  # else it would wait for its thread
                board.close()
        threading.excepthook = usual


@contextmanager
def _wandb(run: Path, config: dict[str, Any]) -> Iterator[Log]:
    """Every start is a run there; those of one folder make a group."""
    import wandb  # pyright: ignore[reportMissingImports]

    with wandb.init(
        project=PROJECT, group=run.name, name=run.name, config=config, dir=str(run)
    ) as there:
        yield lambda metrics, step, done: there.log(_curves(metrics), step=done)


def _curves(metrics: dict[int, dict[str, float]]) -> dict[str, float]:
    """Means over the seeds, and the loss of each."""
    names = next(iter(metrics.values()))
    means = {name: float(np.mean([own[name] for own in metrics.values()])) for name in names}
    return means | {f"loss/seed_{seed:04d}": own["loss"] for seed, own in metrics.items()}
