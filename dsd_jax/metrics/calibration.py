"""How much the judge may ask: real objects must pass, each left out in turn, and broken ones not.

Letters: o real objects, m broken ones of a kind, v views, f features. Near-duplicates are removed.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dsd_jax.metrics import judge, wholeness
from dsd_jax.metrics.bank import Limits
from dsd_jax.metrics.diversity import cosine_similarity, object_features
from dsd_jax.metrics.framing import Framing

# Share of the real objects that pass everything, of those whose category has another; and shares
# that may be turned down for not being whole, and by each limit of framing.
PASS, NOT_WHOLE, NOT_FRAMED = 0.86, 0.06, 0.01
# Kinds that are told by their features; the others by their frame.
TAUGHT = ("shuffled", "exploded", "noise", "card", "overlapping", "quartered")


class Broken(NamedTuple):
    """Objects of one kind.

    Attributes:
        source: which real objects they were made from.
        features: of their views.
        framing: see `metrics.framing`.
    """

    source: Int[np.ndarray, "m"]
    features: Float[np.ndarray, "m v f"]
    framing: Framing


class Calibration(NamedTuple):
    """What was found.

    Attributes:
        limits, whole: for the bank.
        passes: of each real object, whether it is accepted.
        shares: {"real", kind of broken ones or "other category": share accepted}.
    """

    limits: Limits
    whole: Float[np.ndarray, "2f"]
    passes: Bool[np.ndarray, "o"]
    shares: dict[str, float]


def calibrate(
    view_features: Float[np.ndarray, "o v f"],
    categories: Sequence[str],
    framed: Framing,
    broken: Mapping[str, Broken],
    near: float = 0.95,
    taught: Sequence[str] = TAUGHT,
) -> Calibration:
    """Limits of the verdict, and what they come to.

    Args:
        framed: of the real objects.
        broken: by kind, those of `taught` among them. Of each, its source and the source's near
            duplicates (a cosine above `near`) are left out of the reference.
        taught: kinds from which it is learnt what is not whole.
    """
    category = np.unique(categories, return_inverse=True)[1]
    known = object_features(view_features)
    evidence = wholeness.evidence(view_features)
    pieces = np.concatenate([wholeness.evidence(broken[kind].features) for kind in taught])
    source = np.concatenate([broken[kind].source for kind in taught])
    judged = np.concatenate([wholeness.evidence(own.features) for own in broken.values()])
    origin = np.concatenate([own.source for own in broken.values()])
    real_whole, broken_whole = wholeness.left_out(evidence, pieces, source, judged, origin)
    vote, other_vote = _real_votes(known, category)
    asked = (np.bincount(category) > 1)[category]
    limits = Limits(0.0, *_limits(real_whole, framed))
    fine = (real_whole >= limits.whole) & judge.within(framed, limits)
    limits = limits._replace(vote=_vote_limit(vote[asked], fine[asked]))
    passes = fine & (vote >= limits.vote)
    shares = {"real": float(passes[asked].mean()),
              "other category": float((fine & (other_vote >= limits.vote)).mean())}  # fmt: skip
    start = 0
    for kind, own in broken.items():
        whole = broken_whole[start : start + len(own.source)] >= limits.whole
        start += len(own.source)
        enough = _broken_votes(known, category, own, near) >= limits.vote
        shares[kind] = float((whole & enough & judge.within(own.framing, limits)).mean())
    toward = wholeness.direction(evidence, pieces)
    middle = (evidence.mean(0) + pieces.mean(0)) / 2 @ toward
    return Calibration(limits._replace(whole=limits.whole + float(middle)), toward, passes, shares)


def _limits(whole: Float[np.ndarray, "o"], framed: Framing) -> tuple[float, ...]:
    """Least wholeness, most sideways and upwards, least extent and relief."""
    return (
        float(np.quantile(whole, NOT_WHOLE)),
        float(np.quantile(framed.sideways, 1 - NOT_FRAMED)),
        float(np.quantile(framed.upwards, 1 - NOT_FRAMED)),
        float(np.quantile(framed.extent, NOT_FRAMED)),
        float(np.quantile(framed.relief, NOT_FRAMED, method="lower")),
    )


def _vote_limit(vote: Float[np.ndarray, "k"], fine: Bool[np.ndarray, "k"]) -> float:
    """The largest limit with which `PASS` of all objects are fine and have the vote."""
    wanted = int(np.ceil(PASS * len(vote)))
    ranked = np.sort(vote[fine])[::-1]
    return float(ranked[min(wanted, len(ranked)) - 1])


def _real_votes(
    known: Float[np.ndarray, "o f"], category: Int[np.ndarray, "o"]
) -> tuple[Float[np.ndarray, "o"], Float[np.ndarray, "o"]]:
    """Of each object, left out, the vote for its category, and for another one taken at random."""
    cosines = cosine_similarity(known, known)
    np.fill_diagonal(cosines, -np.inf)
    nearest = judge.by_category(cosines, category)
    step = np.random.default_rng(0).integers(1, nearest.shape[1], len(category))
    other = (category + step) % nearest.shape[1]
    return judge.votes(nearest, category)[0], judge.votes(nearest, other)[0]


def _broken_votes(known, category, own: Broken, near: float) -> Float[np.ndarray, "m"]:
    """The votes for the category of the source."""
    cosines = cosine_similarity(object_features(own.features), known)
    cosines[cosine_similarity(known[own.source], known) > near] = -np.inf
    return judge.votes(judge.by_category(cosines, category), category[own.source])[0]
