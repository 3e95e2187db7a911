"""Seeds of which nothing came: their numbers stopped being finite, or nothing is left to be seen.

They are named at once and left out of all scores; the others do not notice. Letters: n seeds, c
seeds a chunk, v views, h w pixels.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Bool, Float, UInt8

from dsd_jax.engine import hosts
from dsd_jax.metrics import grain
from dsd_jax.metrics.scores import Scores
from dsd_jax.recipe.state import State

# The exit code of a run of which a seed was lost.
LOST = 3
# The name under which a checkpoint keeps the step after which a seed was found out; 0: it was not.
DIVERGED = "diverged"
GONE = "nothing of it is left to be seen"
# Where less of every view than this shows something, an object is gone.
_LEAST_SHARE = 1e-3


def diverged(step: int) -> str:
    """What is said of a seed that was found out after so many steps."""
    return f"diverged: its numbers are no longer finite after step {step}"


def say_lost(seed: int, why: str) -> None:
    """Name a seed that was lost, on stderr."""
    if hosts.is_first():
        print(f"seed {seed} {why}; it is left out", file=sys.stderr)


def finite(states: State, loss: Float[np.ndarray, "n"] | None = None) -> Bool[np.ndarray, "n"]:
    """Which of the stacked seeds have finite parameters and, where it is given, a finite loss.

    Of several processes' seeds, all.
    """
    sound = hosts.all_rows(hosts.own_rows(_finite(states.step.sharding)(states.params)))
    return sound if loss is None else sound & np.isfinite(loss)


@cache
def _finite(by_seed: Sharding):
    def one(params) -> jax.Array:
        return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()

    return jax.jit(jax.vmap(one), out_shardings=by_seed)


class Health:
    """Looks at the seeds that are optimised.

    Attributes:
        lost: the step after which each seed that diverged was found out.
    """

    def __init__(self, on_lost: Callable[[int, str], None] = say_lost):
        self.lost: dict[int, int] = {}
        self._on_lost = on_lost

    def look(
        self, chunk: Sequence[int], states: State, done: int,
        loss: Float[np.ndarray, "c"] | None = None,
    ) -> None:  # fmt: skip
        """Note which seeds of a chunk diverged within `done` steps, and say so once."""
        sound = finite(states, loss)
        for seed in dict.fromkeys(np.asarray(chunk)[~sound].tolist()):
            if seed not in self.lost:
                self.note(seed, done)

    def note(self, seed: int, step: int) -> None:
        """Note that a seed diverged, and say so."""
        self.lost[seed] = step
        self._on_lost(seed, diverged(step))

    def metrics(self, chunk: Sequence[int]) -> dict[str, np.ndarray]:
        """What a checkpoint is to know of it, [c]; nothing where no seed diverged."""
        steps = np.array([self.lost.get(seed, 0) for seed in chunk], np.float32)
        return {DIVERGED: steps} if steps.any() else {}

    def all_lost(self, chunk: Sequence[int]) -> bool:
        """Whether no seed of a chunk is worth another step."""
        return all(seed in self.lost for seed in chunk)


def gone(views: UInt8[np.ndarray, "n v h w 3"]) -> Bool[np.ndarray, "n"]:
    """Of which objects nothing is to be seen, in pictures on grey."""
    shares = [[grain.silhouette(view / 255).mean() for view in own] for own in views]
    return np.asarray(np.max(shares, 1) < _LEAST_SHARE)


def scores_without(
    seeds: Sequence[int], lost: Collection[int], score: Callable[[list[int]], Scores]
) -> Scores:
    """`score` of the rows of those seeds that are not lost; None for all of the others.

    Args:
        score: rows, at least one -> their scores.
    """
    rows = [i for i, seed in enumerate(seeds) if seed not in lost]
    if not rows:
        reason = {"fidelity": {"category": None, "accepted": None, "fidelity": None,
                               "reason": "no object is left to be judged"}}  # fmt: skip
        nothing: dict[str, Any] = {"diversity": None, "grain": None, "holes": None}
        return Scores(nothing | reason, [{"diversity": None} for _ in seeds])
    found = score(rows)
    each = dict(zip(rows, found.seeds, strict=True))
    unknown = dict.fromkeys(found.seeds[0])
    return Scores(found.run, [each.get(i, unknown) for i in range(len(seeds))])
