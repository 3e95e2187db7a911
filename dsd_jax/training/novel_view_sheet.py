"""Samples of the prior of novel views beside the truth, for objects that it never saw.

Letters: n objects, m target views, s seeds, H W a picture.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from dsd_jax import ode
from dsd_jax.data import pictures
from dsd_jax.data.objects import Objects, held_out
from dsd_jax.export.pictures import contact_sheet, save_jpeg
from dsd_jax.priors.zero123 import Prior, View, load
from dsd_jax.rendering.cameras import DISTANCE
from dsd_jax.rendering.scene import WHITE
from dsd_jax.training.views import composite

NOISES = 3
SIDES = ("side", "back", "other side")  # a quarter, a half, three quarters of a turn on


def run(folder: Path, data: Objects, out: Path, log: Callable[[str], None] = print) -> None:
    """Write `out`/sheet.jpg of the prior in `folder`: objects that are held out, if there are any.

    A row an object: what is known, then for every side the truth and three samples.
    """
    shown = choose(data)
    if not len(shown):
        return log("no sheet: of these objects none is held out that has colours of its own")
    prior = load(folder)
    views, plan = views_of(data, shown, prior.image_size)
    known = views[:, 0] if prior.sees_opacity else views[:, 0, ..., :3]
    samples, views = sample(prior, known, target_poses(prior, plan), NOISES), views[..., :3]
    blocks = np.concatenate([views[:, 1:, None], samples], 2)
    tiles = np.concatenate([views[:, :1], blocks.reshape(len(views), -1, *views.shape[2:])], 1)
    labels = ["known"]
    for side in SIDES:
        labels += [side, *(f"noise {k}" for k in range(NOISES))]
    names = [data.caption[i] for i in shown]
    save_jpeg(out / "sheet.jpg", contact_sheet(tiles.swapaxes(0, 1), labels, 96, names))
    log(f"{out / 'sheet.jpg'} shows {len(shown)} of the objects that are held out")


def choose(data: Objects, count: int = 10) -> np.ndarray:
    """At most `count` objects that are held out and have colours of their own: indices, spread."""
    candidates = np.flatnonzero(held_out(data.caption) & ~np.asarray(data.colourless))
    places = np.linspace(0, len(candidates) - 1, min(count, len(candidates)))
    return candidates[places.astype(int)]


def sample(
    prior: Prior,
    known: np.ndarray,
    poses: np.ndarray,
    seeds: int,
    guidance: float = 3.0,
    steps: int = 30,
) -> np.ndarray:
    """DDIM samples [n, m, seeds, H, W, 3] in [0, 1] of pictures [n, H, W, k] at poses [n, m, 4].

    Seed k starts from the same noise for every object and every view.
    """
    grid = ode.linear_grid(steps, prior.schedule.last)
    noise = jax.random.normal(jax.random.key(0), (seeds, *prior.latent_shape))

    @jax.jit
    def views(params, picture, poses):
        image = prior.encode_image(params, picture)

        def one(pose, noise):
            denoiser = prior.denoiser_at_pose(params, image, pose)(guidance)
            x = ode.integrate(denoiser, prior.schedule, noise, grid, grid[-1]).xhat_t
            return prior.decode(params, x)[..., :3]

        return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(poses, noise)

    run = partial(views, prior.params)
    return np.stack([np.asarray(run(*pair)) for pair in zip(known, poses, strict=True)])


def views_of(
    data: Objects, chosen: Sequence[int] | np.ndarray, resolution: int, seed: int = 0
) -> tuple[np.ndarray, pictures.ViewPlan]:
    """Four views [n, 4, H, W, 4] in [0, 1] of chosen objects on white, 90 degrees apart.

    Elevations and lights are random, see `pictures.plan_views`.
    """
    plan = pictures.plan_views(np.random.default_rng(seed), len(chosen), 1)
    return on_white(data, chosen, plan, resolution), plan


def on_white(
    data: Objects, chosen: Sequence[int] | np.ndarray, plan: pictures.ViewPlan, resolution: int
) -> np.ndarray:
    """The views [n, v, H, W, 4] in [0, 1] of a plan, premultiplied on white."""
    rgba = pictures.render_views(data, chosen, plan, resolution=resolution)
    return np.asarray(composite(rgba, WHITE, opacity=True))


def target_poses(prior: Prior, plan: pictures.ViewPlan) -> np.ndarray:
    """The poses [n, m, 4] of all views but the first, as seen from the first."""
    distance = np.full_like(plan.azimuth, DISTANCE)
    first, others = (
        View(plan.elevation[:, part], plan.azimuth[:, part], distance[:, part])
        for part in (slice(1), slice(1, None))
    )
    return np.asarray(prior.pose(others, first))
