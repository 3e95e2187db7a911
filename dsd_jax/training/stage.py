"""The loop of one training stage: a budget of minutes, checkpoints, progress with its ETA.

The budget is wall time of training steps, compiling left out, so that the same command fits any
machine; the learning rate follows the share of it that is spent.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dsd_jax import pytrees
from dsd_jax.files import shortened
from dsd_jax.training.common import TrainState, learning_rate


def train(
    state: TrainState,
    step: Callable,
    data,
    constants,
    key,
    *,
    folder: Path,
    name: str,
    minutes: float,
    peak_rate: float,
    deadline: float = float("inf"),
    report_every: int = 100,
    checkpoint_minutes: float = 3.0,
    log: Callable[[str], None] = print,
) -> tuple[TrainState, bool]:
    """Train until `minutes` are spent (True) or the clock passes `deadline` (False).

    Continues from `folder`/`name`.safetensors when it is there. `deadline` is a time.time().
    Raises ValueError where a metric is not finite.
    """
    state, spent = restore(state, folder, name)
    budget, saved, done = 60 * minutes, time.time(), int(state.step)
    log(f"{name}: step {done}, {spent / 60:.1f} of {minutes:g} min spent; compiling ...")

    def advance(state, done):
        rate = np.float32(learning_rate(spent / budget, done, peak_rate))
        return step(state, data, constants, key, rate)

    if spent < budget:
        state, metrics = jax.block_until_ready(advance(state, done))
        done += 1
        _check(name, done, jax.device_get(metrics))
        log(f"{name}: compiled in {time.time() - saved:.0f} s")
    while spent < budget and time.time() < deadline:
        start = time.time()
        for _ in range(report_every):
            state, metrics = advance(state, done)
            done += 1
        metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
        _check(name, done, metrics)
        spent += time.time() - start
        _report(log, name, done, metrics, report_every / (time.time() - start), spent, budget)
        if time.time() - saved > 60 * checkpoint_minutes:
            save(state, folder, name, spent)
            saved = time.time()
    save(state, folder, name, spent)
    return state, spent >= budget


def _check(name: str, done: int, metrics: dict[str, Any]) -> None:
    """Refuse to go on, or to save, where training has diverged."""
    if not all(np.isfinite(value) for value in metrics.values()):
        raise ValueError(f"{name} has diverged by step {done}: lower its --vae-rate or --unet-rate")


def _report(log, name, done, metrics, speed, spent, budget):
    values = "  ".join(f"{k} {v:.4f}" for k, v in metrics.items())
    left = max(budget - spent, 0)
    log(f"{name} step {done}  {values}  {speed:.1f} steps/s  ETA {left / 60:.1f} min")


def save(state: TrainState, folder: Path, name: str, spent: float) -> None:
    """Checkpoint: the state, and the seconds spent beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    pytrees.save_tree(folder / f"{name}.safetensors", state, {"spent": json.dumps(spent)})


def restore(state: TrainState, folder: Path, name: str) -> tuple[TrainState, float]:
    """The checkpoint if there is one, shaped as `state`; else `state` itself and 0 seconds.

    Raises ValueError where it cannot be read, or has another shape.
    """
    path = folder / f"{name}.safetensors"
    if not path.exists():
        return state, 0.0
    try:
        loaded = pytrees.load_tree(path, jax.eval_shape(lambda: state))
        spent = float(pytrees.load_metadata(path)["spent"])
    except (ValueError, KeyError) as error:
        said = shortened(error)
        raise ValueError(
            f"the checkpoint {path} does not fit: {said}; give the flags that it was made with, "
            "another --out, or remove it"
        ) from None
    shardings = jax.tree.map(lambda a: a.sharding, state)
    return jax.device_put(loaded, shardings), spent
