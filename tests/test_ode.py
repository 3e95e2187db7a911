"""DDIM against NumPy and against an ODE whose solution is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax import ode
from dsd_jax.priors.gaussian import GaussianMixture, ode_solution
from dsd_jax.schedule import CLEAN, NoiseSchedule

SCHEDULE = NoiseSchedule.from_config(
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
)
GRID = ode.linear_grid()
MIXTURE = GaussianMixture(
    jnp.log(jnp.array([0.3, 0.7])),
    jnp.array([[1.0, -2.0, 0.5], [-1.5, 1.0, 0.0]]),
    jnp.array([[0.3, 0.2, 1.0], [0.1, 0.4, 0.5]]),
)
NOISE = jax.random.normal(jax.random.key(3), (3,))


def denoiser(x_t, t):
    return MIXTURE.eps(SCHEDULE, x_t, t)


def numpy_ddim(denoiser, x, times):
    """x at the last of `times`, by the textbook formula in float64."""
    abar = np.append(np.asarray(SCHEDULE.alphas_cumprod, np.float64), 1.0)  # abar[-1] is CLEAN
    x = np.asarray(x, np.float64)
    for t, s in itertools.pairwise(times):
        eps = np.asarray(denoiser(jnp.asarray(x, jnp.float32), t), np.float64)
        xhat = (x - np.sqrt(1 - abar[t]) * eps) / np.sqrt(abar[t])
        x = np.sqrt(abar[s]) * xhat + np.sqrt(1 - abar[s]) * eps
    return x


def test_the_authors_grid():
    assert GRID == (999, 899, 799, 699, 599, 499, 399, 299, 199, 99, 0)


@pytest.mark.parametrize(("t", "s"), [(999, 899), (99, 0), (0, CLEAN), (300, 400)])
def test_one_step(t, s):
    expected = numpy_ddim(denoiser, NOISE, (t, s))
    step = jax.jit(lambda t, s: ode.ddim_step(SCHEDULE, NOISE, denoiser(NOISE, t), t, s))
    np.testing.assert_allclose(step(t, s), expected, rtol=1e-4, atol=1e-5)


def test_trajectory_is_ddim_in_three_spaces():
    points = jax.jit(lambda x: ode.trajectory(denoiser, SCHEDULE, x, GRID))(NOISE)
    assert points.x_t.shape == points.xhat_t.shape == points.eps_t.shape == (11, 3)
    for i, t in enumerate(GRID):
        expected = numpy_ddim(denoiser, NOISE, GRID[: i + 1])
        np.testing.assert_allclose(points.x_t[i], expected, atol=1e-5)
        np.testing.assert_allclose(points.eps_t[i], denoiser(points.x_t[i], t), atol=1e-5)
    sample = numpy_ddim(denoiser, NOISE, (*GRID, CLEAN))
    np.testing.assert_allclose(points.xhat_t[-1], sample, atol=1e-5)
    s = SCHEDULE.s(jnp.array(GRID))[1:, None]
    np.testing.assert_allclose(  # one DDIM step in one-step-prediction space
        jnp.diff(points.xhat_t, axis=0), -s * jnp.diff(points.eps_t, axis=0), atol=1e-4
    )


@pytest.mark.parametrize("t_end", [999, 998, 899, 650, 1, 0])
def test_integrate_stops_at_t_end(t_end):
    times = [t for t in GRID if t > t_end] + [t_end]
    x_t = numpy_ddim(denoiser, NOISE, times)
    point = ode.integrate(denoiser, SCHEDULE, NOISE, GRID, t_end)
    np.testing.assert_allclose(point.x_t, x_t, atol=1e-5)
    np.testing.assert_allclose(point.eps_t, denoiser(point.x_t, t_end), atol=1e-5)
    assert ode.steps_to(GRID, t_end) == len(times) - 1


def test_t_end_below_a_grid_that_stops_early():
    point = ode.integrate(denoiser, SCHEDULE, NOISE, (999, 500), 200)
    np.testing.assert_allclose(point.x_t, numpy_ddim(denoiser, NOISE, (999, 500, 200)), atol=1e-5)


class Counter:
    """Wraps the denoiser; counts its traces, and its evaluations while the program runs."""

    def __init__(self):
        self.traces = self.evaluations = 0

    def __call__(self, x_t, t):
        self.traces += 1
        jax.debug.callback(self._evaluated)
        return denoiser(x_t, t)

    def _evaluated(self):
        self.evaluations += 1


def test_traced_t_end_costs_one_compilation_and_only_the_steps_needed():
    counter = Counter()
    run = jax.jit(lambda t_end: ode.integrate(counter, SCHEDULE, NOISE, GRID, t_end).x_t)
    run(999)
    jax.effects_barrier()
    traces = counter.traces
    for t_end in (990, 899, 320, 0):
        counter.evaluations = 0
        run(t_end)
        jax.effects_barrier()
        assert counter.evaluations == sum(t > t_end for t in GRID) + 1
    assert counter.traces == traces
    assert run._cache_size() == 1


def test_vmap_over_seeds_costs_only_the_steps_needed():
    counter = Counter()
    run = jax.jit(
        jax.vmap(lambda x, t: ode.integrate(counter, SCHEDULE, x, GRID, t).x_t, in_axes=(0, None))
    )
    noise = jax.random.normal(jax.random.key(0), (5, 3))
    batched = run(noise, 650)
    jax.effects_barrier()
    assert counter.evaluations == 5  # the callback takes no batched input: one call a batch
    one_by_one = [ode.integrate(denoiser, SCHEDULE, x, GRID, 650).x_t for x in noise]
    np.testing.assert_allclose(batched, jnp.stack(one_by_one), atol=1e-5)


def test_vmap_over_different_t_end():
    t_end = jnp.array([950, 320, 650])
    batched = jax.vmap(lambda t: ode.integrate(denoiser, SCHEDULE, NOISE, GRID, t).x_t)(t_end)
    for row, t in zip(batched, t_end, strict=True):
        alone = ode.integrate(denoiser, SCHEDULE, NOISE, GRID, t).x_t
        np.testing.assert_allclose(row, alone, atol=1e-5)


def test_half_precision_networks_are_integrated_in_float32():
    half = lambda x_t, t: denoiser(x_t, t).astype(jnp.bfloat16)  # noqa: E731
    point = ode.integrate(half, SCHEDULE, NOISE.astype(jnp.bfloat16), GRID, 500)
    assert {leaf.dtype for leaf in point} == {jnp.dtype("float32")}


def test_first_order_convergence_to_the_closed_form():
    with jax.enable_x64(True):
        steps = 4097
        abar = jnp.cos(jnp.linspace(0.01, 1.5, steps, dtype=jnp.float64)) ** 2
        fine = NoiseSchedule(abar)
        gaussian = GaussianMixture(
            jnp.zeros(1), jnp.array([[0.7, -1.2]]), jnp.array([[0.5, 0.05]], jnp.float64)
        )
        x_T = jnp.array([0.3, -1.1])
        exact = ode_solution(gaussian.mean[0], gaussian.variance[0], fine, x_T, steps - 1, 0)
        errors = []
        for stride in (64, 32, 16, 8):
            grid = range(steps - 1, -1, -stride)
            eps = lambda x_t, t: gaussian.eps(fine, x_t, t)  # noqa: E731
            point = ode.integrate(eps, fine, x_T, jnp.array(grid), 0)
            errors.append(np.abs(point.x_t - exact).max())
        ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert errors[-1] < 5e-3
    np.testing.assert_allclose(ratios, 2.0, atol=0.15)


# ---- points that are kept ---------------------------------------------------------------------


@pytest.mark.parametrize("t_end", [999, 950, 899, 650, 100, 1, 0])
def test_x_on_the_nodes_is_the_integrated_one(t_end):
    counter = Counter()
    x_nodes = jax.jit(lambda x: ode.nodes(counter, SCHEDULE, x, GRID))(NOISE)
    jax.effects_barrier()
    assert counter.evaluations == len(GRID) - 1
    x_t = jax.jit(lambda t: ode.on_nodes(SCHEDULE, x_nodes, GRID, t))(t_end)
    expected = ode.integrate(denoiser, SCHEDULE, NOISE, GRID, t_end).x_t
    np.testing.assert_allclose(x_t, expected, atol=1e-5)


@pytest.mark.parametrize("t_end", [999, 950, 899, 650, 100, 1, 0])
def test_a_table_of_eps_tells_where_the_trajectory_stands(t_end):
    """x_t as `integrate` asks for its last eps there; eps_t, and so xhat_t, on the grid alone."""
    eps = ode.trajectory(denoiser, SCHEDULE, NOISE, GRID).eps_t
    found = jax.jit(lambda t: ode.on_table(SCHEDULE, NOISE, eps, GRID, t))(t_end)
    expected = ode.integrate(denoiser, SCHEDULE, NOISE, GRID, t_end)
    np.testing.assert_allclose(found.x_t, expected.x_t, atol=1e-5)
    if t_end in GRID:
        np.testing.assert_allclose(found.eps_t, expected.eps_t, atol=1e-5)
        np.testing.assert_allclose(found.xhat_t, expected.xhat_t, atol=2e-4)


def test_interpolation_is_linear_in_s():
    slope = jnp.array([2.0, -1.0])
    values = 0.5 + SCHEDULE.s(jnp.array(GRID))[:, None] * slope
    times = jnp.array([999, 998, 899, 500, 42, 0])
    got = jax.vmap(lambda t: ode.interpolate(SCHEDULE, values, GRID, t))(times)
    np.testing.assert_allclose(got, 0.5 + SCHEDULE.s(times)[:, None] * slope, rtol=1e-5)
    stored = values.astype(jnp.bfloat16)
    for i, t in enumerate(GRID):
        got = ode.interpolate(SCHEDULE, stored, GRID, t)
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, stored[i].astype(jnp.float32))
    assert float(ode.interpolation_error(SCHEDULE, values, GRID)) < 1e-6


def test_interpolation_error_is_what_is_missed_and_falls_with_the_square_of_the_gaps():
    def eps(times):
        return jnp.sin(3 * jnp.log1p(SCHEDULE.s(times)))[:, None] * jnp.array([1.0, -2.0])

    times = jnp.arange(150, 1000)
    estimated, missed = [], []
    for points in (25, 50, 100):
        grid = ode.linear_grid(points, end=150)
        values = eps(jnp.array(grid))
        got = jax.vmap(lambda t, v=values, g=grid: ode.interpolate(SCHEDULE, v, g, t))(times)
        error = jnp.sqrt(jnp.mean((got - eps(times)) ** 2) / jnp.mean(eps(times) ** 2))
        estimated.append(float(ode.interpolation_error(SCHEDULE, values, grid)))
        missed.append(float(error))
    for i in range(3):
        assert missed[i] < estimated[i] < 2 * missed[i]
    np.testing.assert_allclose(np.divide(estimated[:-1], estimated[1:]), 4, rtol=0.2)
