"""The ODE of a seed, kept per view bin: it depends on noise, prompt and view, not on the object.

With `OdeSettings.kind` "nodes" the trajectory's x_t at its grid points are kept, and every step
asks the prior once more, at t'. With "table" eps_t is kept, there or at more points, and
interpolated in s_t, and no step asks at all. Everything is a function of the seed's noise, the
condition, the prior and the recipe, so that it is built anew rather than saved.

Letters: b bins, p points in t, v views that are denoised together, h w c latents. A bin is a range
of viewpoints, for all of which its centre stands; which viewpoints are different to a prior it says
itself (`Prior.tells_apart`).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsd_jax import ode
from dsd_jax.priors.base import OVERHEAD, Prior, Viewpoint, angle_from_front
from dsd_jax.priors.view_words import view_index
from dsd_jax.recipe import annealing
from dsd_jax.recipe.parts import CameraSettings, OdeSettings
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.viewpoints import guided, viewpoint_at
from dsd_jax.schedule import NoiseSchedule

STORED = jnp.bfloat16


class KeptOde(NamedTuple):
    """What is kept of one seed's ODEs; with a noise for each view the leaves have a leading axis.

    Attributes:
        values: x_t ("nodes") or eps_t ("table").
        metrics: of a table, "ode_error": what its interpolation loses as a share of eps, [], see
            `ode.interpolation_error`. What the bins lose is no part of it.
    """

    values: Float[Array, "b p *v h w c"]
    metrics: dict[str, Float[Array, ""]]


class Angles(NamedTuple):
    """Centres of bins, radians.

    Attributes:
        azimuth, elevation: [b], or [b, v] where several views are denoised together.
    """

    azimuth: Float[Array, "b *v"]
    elevation: Float[Array, "b *v"]


def build(
    prior: Prior, params: Any, condition: Any, noise: jax.Array, recipe: Recipe, dtype=STORED
) -> KeptOde:
    """What is kept of one seed's ODEs, jittable; vmap over seeds for several.

    The bins go one after another, or, where views are denoised one by one, as many at once as a
    step has views: it takes the prior no more memory than a step.

    Args:
        params: of the prior.
        condition: what the prior was told.
        noise: the seed's, [h, w, c], or [views, h, w, c] with several views.
        dtype: of what is kept.
    """
    one = lambda noise: _build(prior, params, condition, noise, recipe, dtype)  # noqa: E731
    if own_noises(prior, recipe):
        return jax.vmap(one)(noise)
    one_by_one = recipe.camera.views > 1 and not prior.denoises_together
    return one(noise[0] if one_by_one else noise)


def _build(prior: Prior, params, condition, noise: jax.Array, recipe: Recipe, dtype) -> KeptOde:
    schedule, grid = prior.schedule, node_times(recipe, prior.schedule)
    times = jnp.asarray(times_of(recipe, schedule))

    def of_bin(centre: Angles) -> KeptOde:
        guided = _on_ode(prior, params, condition, centre, recipe)
        if recipe.ode.kind == "nodes":
            return KeptOde(ode.nodes(guided, schedule, noise, grid).astype(dtype), {})
        if recipe.ode.table_points is None:
            eps = ode.trajectory(guided, schedule, noise, grid).eps_t
        else:
            x_nodes = ode.nodes(guided, schedule, noise, grid)
            eps = jax.lax.map(lambda t: guided(ode.on_nodes(schedule, x_nodes, grid, t), t), times)
        error = ode.interpolation_error(schedule, eps, times)
        return KeptOde(eps.astype(dtype), {"ode_error": error})

    angles = centres(prior, condition, recipe)
    together = 1 if prior.denoises_together else math.gcd(len(angles.azimuth), recipe.camera.views)
    kept = jax.lax.map(of_bin, angles, batch_size=together)
    return kept._replace(metrics=jax.tree.map(jnp.mean, kept.metrics))


def ode_at(
    kept: KeptOde, prior: Prior, params: Any, condition: Any, viewpoint: Viewpoint, recipe: Recipe,
    noise: jax.Array,
) -> Callable[[jax.Array], ode.Point]:  # fmt: skip
    """t' -> where the ODE stands, for `Given.ode_at`.

    From nodes the prior is asked for the view of the bin's centre: told of another view than that
    which x_t shows, it would correct x_t, and strongly where it is guided.

    Args:
        viewpoint: the one of the step, with a leading axis v where views are denoised together.
        noise: the seed's, of the shape of the views.
    """
    schedule, times = prior.schedule, times_of(recipe, prior.schedule)
    index, turn = bin_of(prior, condition, viewpoint, recipe)
    places = centres(prior, condition, recipe)
    values, centre = jax.tree.map(lambda a: a[index], (kept.values, places))
    if jnp.ndim(viewpoint.azimuth):
        values = jnp.roll(values, -turn, axis=1)
        centre = jax.tree.map(lambda angle: jnp.roll(angle, -turn), centre)

    def from_nodes(t):
        x_t = ode.on_nodes(schedule, values.astype(jnp.float32), times, t)
        eps_t = _on_ode(prior, params, condition, centre, recipe)(x_t, t)
        return ode.Point(x_t, ode.one_step_prediction(schedule, x_t, eps_t, t), eps_t)

    def from_table(t):
        return ode.on_table(schedule, noise, values, times, t)

    return from_nodes if recipe.ode.kind == "nodes" else from_table


def _on_ode(prior: Prior, params, condition, centre: Angles, recipe: Recipe) -> ode.Denoiser:
    """The denoiser that the ODE of a bin follows."""
    viewpoint, _ = viewpoint_at(*centre, recipe.camera)
    denoiser_at = guided(prior, params, condition, viewpoint, recipe.method)
    return recipe.method.ode_denoiser(denoiser_at, prior.schedule)


def size(prior: Prior, condition: Any, recipe: Recipe) -> int:
    """Bytes that what is kept of one seed takes."""
    if not recipe.keeps_ode:
        return 0
    bins = math.prod(centres(prior, condition, recipe).azimuth.shape)
    noises = recipe.camera.views if own_noises(prior, recipe) else 1
    points = len(times_of(recipe, prior.schedule))
    return noises * bins * points * math.prod(prior.latent_shape) * jnp.dtype(STORED).itemsize


def predictions(prior: Prior, condition: Any, recipe: Recipe) -> int:
    """Guided predictions of one view that building what is kept of one seed takes."""
    noises = recipe.camera.views if own_noises(prior, recipe) else 1
    each = len(node_times(recipe, prior.schedule))
    if recipe.ode.kind == "nodes":
        each -= 1
    elif recipe.ode.table_points is not None:
        each += recipe.ode.table_points - 1
    return noises * centres(prior, condition, recipe).azimuth.size * each


def own_noises(prior: Prior, recipe: Recipe) -> bool:
    """Whether views that are denoised one by one have each a noise, and so an ODE, of its own."""
    several = recipe.camera.views > 1 and recipe.view_noise == "own"
    return several and not prior.denoises_together


# ---- points in t -------------------------------------------------------------------------------


def times_of(recipe: Recipe, schedule: NoiseSchedule) -> tuple[int, ...]:
    """The timesteps of what is kept, falling to the last t of a run or to the one below it."""
    if recipe.ode.kind == "nodes" or recipe.ode.table_points is None:
        return node_times(recipe, schedule)
    first = schedule.num_train_timesteps - 1
    return ode.linear_grid(recipe.ode.table_points, first, _last(recipe, schedule))


def node_times(recipe: Recipe, schedule: NoiseSchedule) -> tuple[int, ...]:
    """The grid of the simulated ODE, without the points that no t' lies between."""
    grid, last = recipe.method.ode_grid(schedule), _last(recipe, schedule)
    return grid[: max(2, 1 + sum(t > last for t in grid))]


def _last(recipe: Recipe, schedule: NoiseSchedule) -> int:
    """A timestep not above any t, and so any t', of a run."""
    return math.floor(recipe.optimise.t_min * schedule.num_train_timesteps)


# ---- bins --------------------------------------------------------------------------------------


def centres(prior: Prior, condition: Any, recipe: Recipe) -> Angles:
    """What stands for each bin."""
    tells, cameras, width = prior.tells_apart(condition), recipe.camera, _width(recipe)
    if tells == "cameras":
        return _grid_of_centres(prior, recipe)
    azimuth = {
        "nothing": np.zeros(1),
        "words": np.array([0.0, np.pi / 2, np.pi]),
        "sides": (np.arange(-(-_around(recipe.ode, cameras) // 2)) + 0.5) * width,
    }[tells]
    elevation = np.zeros_like(azimuth)
    if tells != "nothing" and _overhead(cameras):
        azimuth, elevation = np.append(azimuth, 0.0), np.append(elevation, np.pi / 2)
    return _angles(azimuth, elevation)


def _grid_of_centres(prior: Prior, recipe: Recipe) -> Angles:
    """Azimuths and elevations, for a prior that is told the camera."""
    cameras, azimuths = recipe.camera, np.arange(_azimuths(prior, recipe)) + 0.5
    grid = np.meshgrid(azimuths * _width(recipe), _elevations(recipe), indexing="ij")
    azimuth, elevation = (a.ravel() for a in grid)
    if cameras.views > 1 and prior.denoises_together:
        azimuth = azimuth[:, None] + np.arange(cameras.views) * (2 * np.pi / cameras.views)
        elevation = np.broadcast_to(elevation[:, None], azimuth.shape)
    return _angles(azimuth, elevation)


def _elevations(recipe: Recipe) -> np.ndarray:
    """Those of the bins' centres, from the lowest to the highest."""
    cameras, m = recipe.camera, recipe.ode.elevation_bins
    low, high = np.deg2rad((cameras.elevation_min_deg, cameras.elevation_max_deg))
    return low + (np.arange(m) + 0.5) * (high - low) / m


def bin_of(
    prior: Prior, condition: Any, viewpoint: Viewpoint, recipe: Recipe
) -> tuple[jax.Array, jax.Array]:
    """The bin of a viewpoint, and how many views further round than the bin's its first view is.

    Args:
        viewpoint: of one view, or of views denoised together, evenly spread in azimuth and of one
            elevation.
    """
    tells, cameras = prior.tells_apart(condition), recipe.camera
    first = jax.tree.map(lambda leaf: leaf[0] if jnp.ndim(viewpoint.azimuth) else leaf, viewpoint)
    azimuth, elevation = first.azimuth, first.elevation
    around, width, none = _around(recipe.ode, cameras), _width(recipe), jnp.zeros((), jnp.int32)
    if tells == "cameras":
        count, m = _azimuths(prior, recipe), recipe.ode.elevation_bins
        low, high = np.deg2rad((cameras.elevation_min_deg, cameras.elevation_max_deg))
        a = _floor(jnp.mod(azimuth, 2 * jnp.pi) / width, around)
        e = _floor((elevation - low) / max(high - low, 1e-6) * m, m)
        return (a % count) * m + e, a // count
    if tells == "nothing":
        return none, none
    if tells == "words":
        return view_index(first), none
    half = -(-around // 2)
    a = _floor(angle_from_front(azimuth) / width, half)
    return (jnp.where(elevation > OVERHEAD, half, a) if _overhead(cameras) else a), none


def fixed_views(prior: Prior, recipe: Recipe, step) -> tuple[jax.Array, float, float] | None:
    """What `CameraSettings.fixed_until` says of a step: (whether views are fixed, where the first).

    That is a bin's centre, azimuth and elevation, half a quarter from the front. None where views
    are not denoised together: each follows an ODE of its own.
    """
    cameras, width = recipe.camera, _width(recipe)
    if cameras.fixed_until is None or cameras.views == 1 or not prior.denoises_together:
        return None
    t = annealing.run_timestep(step, recipe, prior.schedule)
    azimuth = (math.ceil(np.pi / 4 / width) - 0.5) * width
    elevation = _elevations(recipe)[recipe.ode.elevation_bins // 2]
    return t > cameras.fixed_until * prior.schedule.num_train_timesteps, azimuth, elevation


def _around(numbers: OdeSettings, cameras: CameraSettings) -> int:
    """Bins all around the object: a multiple of the views."""
    return -(-numbers.azimuth_bins // cameras.views) * cameras.views


def _width(recipe: Recipe) -> float:
    """Radians of azimuth of a bin."""
    return 2 * np.pi / _around(recipe.ode, recipe.camera)


def _azimuths(prior: Prior, recipe: Recipe) -> int:
    """Bins in azimuth of a prior that is told the camera.

    Views that are denoised together and have one noise all see a quarter alike, say.
    """
    several = recipe.camera.views > 1 and recipe.view_noise != "own"
    shared = prior.denoises_together and several
    return _around(recipe.ode, recipe.camera) // (recipe.camera.views if shared else 1)


def _overhead(cameras: CameraSettings) -> bool:
    """Whether the prompt may have to say that a view is from above."""
    return bool(np.deg2rad(cameras.elevation_max_deg) > OVERHEAD)


def _angles(azimuth: np.ndarray, elevation: np.ndarray) -> Angles:
    return Angles(jnp.asarray(azimuth, jnp.float32), jnp.asarray(elevation, jnp.float32))


def _floor(x: jax.Array, count: int) -> jax.Array:
    """Whole part, within 0 .. count - 1."""
    return jnp.clip(jnp.floor(x).astype(jnp.int32), 0, count - 1)
