"""What a prior of novel views leaves open, and gets wrong: its own pictures of held-out objects.

Letters: n objects, m turns, s noises, f features of `metrics.efficientnet`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dsd_jax.data import pictures
from dsd_jax.data.objects import Objects
from dsd_jax.files import write_json
from dsd_jax.metrics.diversity import diversity
from dsd_jax.metrics.efficientnet import features_in_batches, load_efficientnet
from dsd_jax.metrics.novel_views import perceptual
from dsd_jax.priors.zero123 import Prior, load
from dsd_jax.training import novel_view_sheet as sheet

OBJECTS, NOISES = 20, 6
GUIDANCE = 2.0
# Of the picture, from the object's front and above the horizon; and how far from it views are.
AZIMUTH_DEG, ELEVATION_DEG = 30.0, 20.0
TURNS_DEG = (45, 180)


def run(folder: Path, data: Objects, out: Path, log: Callable[[str], None] = print) -> None:
    """Write `out`/sheet.jpg and, where objects are held out, `out`/scores.json."""
    out.mkdir(parents=True, exist_ok=True)
    sheet.run(folder, data, out, log)
    chosen = sheet.choose(data, OBJECTS)
    if len(chosen):
        scores = score(load(folder), data, chosen)
        write_json(out / "scores.json", scores)
        log(", ".join(f"{name} {value:.3f}" for name, value in scores.items()))


def score(prior: Prior, data: Objects, chosen: np.ndarray) -> dict[str, float]:
    """`distances` of DDIM samples, six noises each, from a picture 30 degrees beside the front."""
    azimuths = (AZIMUTH_DEG, *(AZIMUTH_DEG + turn for turn in TURNS_DEG))
    plan = pictures.plan_around(azimuths, ELEVATION_DEG, len(chosen))
    views = sheet.on_white(data, chosen, plan, prior.image_size)
    known = views[:, 0] if prior.sees_opacity else views[:, 0, ..., :3]
    made = sheet.sample(prior, known, sheet.target_poses(prior, plan), NOISES, GUIDANCE)
    network = load_efficientnet()
    truth = features_in_batches(network, views[:, 1:, ..., :3])
    return distances(features_in_batches(network, made), truth)


def distances(
    made: Float[np.ndarray, "n m s f"], truth: Float[np.ndarray, "n m f"]
) -> dict[str, float]:
    """Mean cosine distances, at each turn.

    Returns:
        between_45, ..: between the pictures of two noises.
        between_45_over_180: how much more is known of what is near the picture.
        to_truth_45, ..: from a picture to the object's.
    """
    between, away = {}, {}
    for i, turn in enumerate(TURNS_DEG):
        between[turn] = float(np.mean([diversity(own[:, None]) for own in made[:, i]]))
        away[turn] = float(perceptual(made[:, i], truth[:, i, None]).mean())
    near, far = between[TURNS_DEG[0]], between[TURNS_DEG[1]]
    return {
        **{f"between_{turn}": value for turn, value in between.items()},
        "between_45_over_180": near / far if far else float("inf"),
        **{f"to_truth_{turn}": value for turn, value in away.items()},
    }
