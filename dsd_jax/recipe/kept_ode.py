"""The ODE of a seed, kept per view bin: it depends on noise, prompt and view, not on the object.

The prompt may be a picture, here and below.

With `Settings.ode` "nodes" the trajectory's x_t at its grid points are kept, and every step asks
the prior once more, at t'. With "table" eps_t is kept, there or at more points, and interpolated in
s_t, and no step asks at all. Everything is a function of the seed's noise, the prompt, the prior
and the settings, so that it is built anew rather than saved.

Letters: b bins, p points in t, v views that are denoised together, h w c latents. A bin is a range
of viewpoints, for all of which its centre stands: of azimuth and elevation, where the prior is told
the camera; of what the prompt says about the view, where it has none, which is the same on the left
and on the right and changes with elevation at 60 degrees alone.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsd_jax import ode
from dsd_jax.distillation import dsd
from dsd_jax.distillation.common import Method
from dsd_jax.recipe.presets import Settings
from dsd_jax.recipe.viewpoints import (
    OVERHEAD,
    Prompt,
    Viewpoint,
    apart,
    camera_at,
    condition,
    takes_picture,
    view_index,
)
from dsd_jax.schedule import NoiseSchedule

STORED = jnp.bfloat16


class Cache(NamedTuple):
    """What is kept of one seed's ODEs; with a noise for each view the leaves have a leading axis.

    Attributes:
        values: x_t ("nodes") or eps_t ("table").
        metrics: of a table, "ode_error": what its interpolation loses as a share of eps, [], see
            `ode.interpolation_error`. What the bins lose is no part of it.
    """

    values: Float[Array, "b p *v h w c"]
    metrics: dict[str, Float[Array, ""]]


def is_used(method: Method, settings: Settings) -> bool:
    """Whether the steps of a distillation method need a cache under these (resolved) settings."""
    stays = settings.ode != "exact" and settings.view_noise != "attached"
    return stays and "eps_at" in inspect.signature(method.gradient).parameters


def build(
    prior, params: Any, text: Prompt, noise: jax.Array, settings: Settings, dtype=STORED
) -> Cache:
    """The cache of one seed, jittable; vmap over seeds for several.

    The bins go one after another, or, where views are denoised one by one, as many at once as a
    step has views: it takes the prior no more memory than a step.

    Args:
        params: of the prior.
        noise: the seed's, [h, w, c], or [views, h, w, c] with several views.
        dtype: of what is kept.
    """
    if own_noises(prior, settings):
        return jax.vmap(lambda noise: _build(prior, params, text, noise, settings, dtype))(noise)
    one_by_one = settings.views > 1 and not prior.has_camera
    return _build(prior, params, text, noise[0] if one_by_one else noise, settings, dtype)


def _build(prior, params, text: Prompt, noise: jax.Array, settings: Settings, dtype) -> Cache:
    schedule, grid = prior.schedule, node_times(settings, prior.schedule)
    times = jnp.asarray(times_of(settings, schedule))

    def of_bin(centre: Viewpoint) -> Cache:
        guided = _on_ode(prior, params, text, centre, settings)
        if settings.ode == "nodes":
            return Cache(ode.nodes(guided, schedule, noise, grid).astype(dtype), {})
        if settings.ode_table_points is None:
            eps = ode.trajectory(guided, schedule, noise, grid).eps_t
        else:
            x_nodes = ode.nodes(guided, schedule, noise, grid)
            eps = jax.lax.map(lambda t: guided(ode.on_nodes(schedule, x_nodes, grid, t), t), times)
        error = ode.interpolation_error(schedule, eps, times)
        return Cache(eps.astype(dtype), {"ode_error": error})

    viewpoints = centres(prior, settings)
    together = 1 if prior.has_camera else math.gcd(len(viewpoints.azimuth), settings.views)
    cache = jax.lax.map(of_bin, viewpoints, batch_size=together)
    return cache._replace(metrics=jax.tree.map(jnp.mean, cache.metrics))


def eps_at(
    cache: Cache, prior, params: Any, text: Prompt, viewpoint: Viewpoint, settings: Settings
) -> Callable[[jax.Array], jax.Array]:
    """t' -> eps of the ODE there, for `dsd.gradient`.

    From nodes the prior is asked for the view of the bin's centre: told of another view than that
    which x_t shows, it would correct x_t, and strongly where it is guided.

    Args:
        viewpoint: the one of the step, with a leading axis v where views are denoised together.
    """
    schedule, times = prior.schedule, times_of(settings, prior.schedule)
    index, turn = bin_of(prior, viewpoint, settings)
    kept, centre = jax.tree.map(lambda a: a[index], (cache.values, centres(prior, settings)))
    if jnp.ndim(viewpoint.azimuth):
        kept = jnp.roll(kept, -turn, axis=1)
        centre = jax.tree.map(lambda angle: jnp.roll(angle, -turn), centre)

    def from_nodes(t):
        x_t = ode.on_nodes(schedule, kept.astype(jnp.float32), times, t)
        return _on_ode(prior, params, text, centre, settings)(x_t, t)

    def from_table(t):
        return ode.interpolate(schedule, kept, times, t)

    return from_nodes if settings.ode == "nodes" else from_table


def _on_ode(prior, params, text: Prompt, viewpoint: Viewpoint, settings: Settings) -> ode.Denoiser:
    """The denoiser that the ODE of a viewpoint follows."""
    camera = camera_at(viewpoint, settings)
    denoiser_at = condition(prior, params, text, viewpoint, camera, settings)
    scale, below = settings.guidance_scale, settings.ode_guidance_below
    return dsd.on_ode(denoiser_at, prior.schedule, scale, below)


def size(prior, settings: Settings) -> int:
    """Bytes that the cache of one seed takes."""
    if settings.ode == "exact":
        return 0
    bins = math.prod(centres(prior, settings).azimuth.shape)
    noises = settings.views if own_noises(prior, settings) else 1
    points = len(times_of(settings, prior.schedule))
    return noises * bins * points * math.prod(prior.latent_shape) * jnp.dtype(STORED).itemsize


def predictions(prior, settings: Settings) -> int:
    """Guided predictions of one view that building the cache of one seed takes."""
    noises = settings.views if own_noises(prior, settings) else 1
    each = len(node_times(settings, prior.schedule))
    if settings.ode == "nodes":
        each -= 1
    elif settings.ode_table_points is not None:
        each += settings.ode_table_points - 1
    return noises * centres(prior, settings).azimuth.size * each


def own_noises(prior, settings: Settings) -> bool:
    """Whether views that are denoised one by one have each a noise, and so an ODE, of its own."""
    return settings.views > 1 and settings.view_noise == "own" and not prior.has_camera


# ---- points in t -------------------------------------------------------------------------------


def times_of(settings: Settings, schedule: NoiseSchedule) -> tuple[int, ...]:
    """The timesteps of what is kept, falling to the last t of a run or to the one below it."""
    if settings.ode == "nodes" or settings.ode_table_points is None:
        return node_times(settings, schedule)
    return ode.linear_grid(settings.ode_table_points, end=_last(settings, schedule))


def node_times(settings: Settings, schedule: NoiseSchedule) -> tuple[int, ...]:
    """The grid of the simulated ODE, without the points that no t' lies between."""
    grid, last = ode.linear_grid(settings.ode_points), _last(settings, schedule)
    return grid[: max(2, 1 + sum(t > last for t in grid))]


def _last(settings: Settings, schedule: NoiseSchedule) -> int:
    """A timestep not above any t, and so any t', of a run."""
    return math.floor(settings.t_min * schedule.num_train_timesteps)


# ---- bins --------------------------------------------------------------------------------------


def centres(prior, settings: Settings) -> Viewpoint:
    """What stands for each bin: leaves [b], or [b, v] where several views are denoised together."""
    if prior.has_camera or takes_picture(prior):
        return _grid_of_centres(prior, settings)
    azimuth = {
        "none": np.zeros(1),
        "words": np.array([0.0, np.pi / 2, np.pi]),
        "perp-neg": (np.arange(-(-_around(settings) // 2)) + 0.5) * _width(settings),
    }[settings.view_prompts]
    elevation = np.zeros_like(azimuth)
    if _overhead(settings):
        azimuth, elevation = np.append(azimuth, 0.0), np.append(elevation, np.pi / 2)
    return _viewpoint(azimuth, elevation)


def _grid_of_centres(prior, settings: Settings) -> Viewpoint:
    """Azimuths and elevations, for a prior that is told the camera."""
    low, high = np.deg2rad((settings.elevation_min_deg, settings.elevation_max_deg))
    m = settings.ode_elevation_bins
    elevations = low + (np.arange(m) + 0.5) * (high - low) / m
    azimuths = (np.arange(_azimuths(prior, settings)) + 0.5) * _width(settings)
    azimuth, elevation = (a.ravel() for a in np.meshgrid(azimuths, elevations, indexing="ij"))
    if settings.views > 1 and prior.has_camera:
        azimuth = azimuth[:, None] + np.arange(settings.views) * (2 * np.pi / settings.views)
        elevation = np.broadcast_to(elevation[:, None], azimuth.shape)
    return _viewpoint(azimuth, elevation)


def bin_of(prior, viewpoint: Viewpoint, settings: Settings) -> tuple[jax.Array, jax.Array]:
    """The bin of a viewpoint, and how many views further round than the bin's its first view is.

    Args:
        viewpoint: of one view, or of views denoised together, evenly spread in azimuth and of one
            elevation.
    """
    azimuth, elevation = (jnp.ravel(angle)[0] for angle in viewpoint)
    width, none = _width(settings), jnp.zeros((), jnp.int32)
    if prior.has_camera or takes_picture(prior):
        count, m = _azimuths(prior, settings), settings.ode_elevation_bins
        low, high = np.deg2rad((settings.elevation_min_deg, settings.elevation_max_deg))
        a = _floor(jnp.mod(azimuth, 2 * jnp.pi) / width, _around(settings))
        e = _floor((elevation - low) / max(high - low, 1e-6) * m, m)
        return (a % count) * m + e, a // count
    if settings.view_prompts == "none":
        return none, none
    if settings.view_prompts == "words":
        return view_index(viewpoint), none
    half = -(-_around(settings) // 2)
    a = _floor(apart(azimuth) / width, half)
    return (jnp.where(elevation > OVERHEAD, half, a) if _overhead(settings) else a), none


def _around(settings: Settings) -> int:
    """Bins all around the object: a multiple of the views."""
    return -(-settings.ode_azimuth_bins // settings.views) * settings.views


def _width(settings: Settings) -> float:
    """Radians of azimuth of a bin."""
    return 2 * np.pi / _around(settings)


def _azimuths(prior, settings: Settings) -> int:
    """Bins in azimuth of a prior that is told the camera.

    Views that are denoised together and have one noise all see a quarter alike, say.
    """
    shared = prior.has_camera and settings.views > 1 and settings.view_noise != "own"
    return _around(settings) // (settings.views if shared else 1)


def _overhead(settings: Settings) -> bool:
    """Whether the prompt may have to say that a view is from above."""
    above = np.deg2rad(settings.elevation_max_deg) > OVERHEAD
    return bool(above) and settings.view_prompts != "none"


def _viewpoint(azimuth: np.ndarray, elevation: np.ndarray) -> Viewpoint:
    return Viewpoint(jnp.asarray(azimuth, jnp.float32), jnp.asarray(elevation, jnp.float32))


def _floor(x: jax.Array, count: int) -> jax.Array:
    """Whole part, within 0 .. count - 1."""
    return jnp.clip(jnp.floor(x).astype(jnp.int32), 0, count - 1)
