"""The probability-flow ODE of a diffusion model, solved by DDIM.

Letters, as in schedule.py, and
    xhat_t   one-step prediction of the clean sample, (x_t - sigma_t eps_t) / alpha_t
    T        the first and noisiest point of a grid; x_T is the noise that starts an ODE
    grid     falling integer timesteps
DDIM is Euler's method for d(x_t / alpha_t) = eps(x_t, t) ds_t. One trajectory is seen in three
spaces, x_t, xhat_t and eps_t; a step t -> s keeps (xhat_t, eps_t) and mixes them anew:

    x_s = alpha_s xhat_t + sigma_s eps_t.                         (arXiv 2010.02502, eq. 12)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dsd_jax.schedule import NoiseSchedule, left_aligned

# (x_t, t) -> eps, with weights, conditioning and guidance scale already bound. eps has the shape
# of x_t; t is one integer timestep, possibly traced.
Denoiser = Callable[[jax.Array, jax.Array | int], jax.Array]


class Point(NamedTuple):
    """A point of a trajectory in all three spaces, each of the sample's shape."""

    x_t: jax.Array
    xhat_t: jax.Array
    eps_t: jax.Array


def linear_grid(points: int = 11, start: int = 999, end: int = 0) -> tuple[int, ...]:
    """Falling timesteps, the integer parts of linspace(start, end, points); the authors' are 11."""
    return tuple(int(t) for t in np.linspace(start, end, points))


def one_step_prediction(schedule: NoiseSchedule, x_t: jax.Array, eps: jax.Array, t) -> jax.Array:
    """xhat_t = (x_t - sigma_t eps) / alpha_t, [...] like x_t; t is a scalar."""
    return (x_t - schedule.sigma(t) * eps) / schedule.alpha(t)


def ddim_step(schedule: NoiseSchedule, x_t: jax.Array, eps: jax.Array, t, s) -> jax.Array:
    """x_s from x_t and its eps, all [...]; s below or above t, or CLEAN for the finished sample."""
    return schedule.add_noise(one_step_prediction(schedule, x_t, eps, t), eps, s)


def start(schedule: NoiseSchedule, x_T: jax.Array, t) -> Point:
    """Where a trajectory stands before the network was ever asked: the noise is its own eps."""
    x_T = x_T.astype(jnp.result_type(x_T, schedule.alphas_cumprod))
    return Point(x_T, one_step_prediction(schedule, x_T, x_T, t), x_T)


def advance(denoiser: Denoiser, schedule: NoiseSchedule, point: Point, t) -> Point:
    """The DDIM step from `point` to t; one evaluation, at t."""
    x_t = schedule.add_noise(point.xhat_t, point.eps_t, t)
    eps_t = denoiser(x_t, t).astype(x_t.dtype)
    return Point(x_t, one_step_prediction(schedule, x_t, eps_t, t), eps_t)


def steps_to(grid, t_end) -> jax.Array:
    """Number of DDIM steps from grid[0] to t_end: the grid points above t_end."""
    return jnp.sum(jnp.asarray(grid) > t_end)


def integrate(denoiser: Denoiser, schedule: NoiseSchedule, x_T: jax.Array, grid, t_end) -> Point:
    """Follow the ODE from x_T [...] at grid[0] over the grid points above t_end to t_end.

    t_end, in 0 .. grid[0], may be traced: one compilation serves all, and costs
    `steps_to(grid, t_end) + 1` evaluations, the last of them eps at t_end. Under vmap over
    different t_end every lane costs what the longest does. The DDIM sample of a whole grid is
    `integrate(..., grid, grid[-1]).xhat_t`. Not differentiable in reverse.
    """
    times = jnp.maximum(jnp.append(jnp.asarray(grid), t_end), t_end)
    return lax.fori_loop(
        0,
        steps_to(grid, t_end) + 1,
        lambda i, point: advance(denoiser, schedule, point, times[i]),
        start(schedule, x_T, times[0]),
    )


def trajectory(denoiser: Denoiser, schedule: NoiseSchedule, x_T: jax.Array, grid) -> Point:
    """All points of the ODE from x_T [...] at grid[0], stacked: leaves [len(grid), ...].

    One evaluation a grid point; the DDIM sample is `.xhat_t[-1]`.
    """

    def step(point, t):
        point = advance(denoiser, schedule, point, t)
        return point, point

    grid = jnp.asarray(grid)
    return lax.scan(step, start(schedule, x_T, grid[0]), grid)[1]


def nodes(denoiser: Denoiser, schedule: NoiseSchedule, x_T: jax.Array, grid) -> jax.Array:
    """x_t on the grid, [len(grid), ...], of the ODE from x_T [...] at grid[0].

    Costs one evaluation a grid point but the last; `on_nodes` gives every x_t in between.
    """
    grid = jnp.asarray(grid)
    points = trajectory(denoiser, schedule, x_T, grid[:-1])
    last = ddim_step(schedule, points.x_t[-1], points.eps_t[-1], grid[-2], grid[-1])
    return jnp.concatenate([points.x_t, last[None]])


def on_nodes(schedule: NoiseSchedule, x_nodes: jax.Array, grid, t) -> jax.Array:
    """x_t [...] of the trajectory through x_nodes [len(grid), ...], at t in grid[-1] .. grid[0].

    A DDIM step is a straight line in (s_t, x_t / alpha_t), so that this is the x_t at which
    `integrate` asks for its last eps, with no evaluation; t may be traced.
    """
    alpha = left_aligned(schedule.alpha(jnp.asarray(grid)), x_nodes)
    return schedule.alpha(t) * interpolate(schedule, x_nodes / alpha, grid, t)


def interpolate(schedule: NoiseSchedule, values: jax.Array, grid, t) -> jax.Array:
    """Values [len(grid), ...] on a falling grid, linearly in s_t at t: [...], at least float32.

    t, in grid[-1] .. grid[0], may be traced.
    """
    grid = jnp.asarray(grid)
    below = jnp.clip(steps_to(grid, t), 1, len(grid) - 1)
    high, low = schedule.s(grid[below - 1]), schedule.s(grid[below])
    part = (schedule.s(t) - low) / (high - low)
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    return part * values[below - 1] + (1 - part) * values[below]


def on_table(schedule: NoiseSchedule, x_T: jax.Array, eps: jax.Array, grid, t) -> Point:
    """The trajectory from x_T [...] whose eps_t on a falling grid are eps [len(grid), ...], at t.

    eps_t is interpolated; x_t follows DDIM's straight lines, each with the eps of its upper end:

        x_t / alpha_t = x_T / alpha_T + sum_k eps_k (max(s_k+1, s_t) - max(s_k, s_t)).

    t, in grid[-1] .. grid[0], may be traced.
    """
    grid, eps_t = jnp.asarray(grid), interpolate(schedule, eps, grid, t)
    s = jnp.maximum(schedule.s(grid), schedule.s(t))
    moved = jnp.tensordot(s[1:] - s[:-1], eps[:-1].astype(eps_t.dtype), 1)
    x_t = schedule.alpha(t) * (x_T / schedule.alpha(grid[0]) + moved)
    return Point(x_t, one_step_prediction(schedule, x_t, eps_t, t), eps_t)


def interpolation_error(schedule: NoiseSchedule, values: jax.Array, grid) -> jax.Array:
    """What `interpolate` loses: root mean square over that of the values [len(grid), ...], [].

    A quarter of what the interpolation between every point's neighbours misses at that point: the
    gaps are half as wide, and the error of straight lines goes with the square. At least 3 points.
    """
    values = values.astype(jnp.float32)
    s = left_aligned(schedule.s(jnp.asarray(grid)), values)
    part = (s[1:-1] - s[2:]) / (s[:-2] - s[2:])
    missed = values[1:-1] - part * values[:-2] - (1 - part) * values[2:]
    return 0.25 * jnp.sqrt(jnp.mean(jnp.square(missed)) / jnp.mean(jnp.square(values)))
