"""DSD against the authors' own gradients, and DSD* against DDIM."""

import authors
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from one_gaussian import unweighted

from dsd_jax import ode
from dsd_jax.distillation import DSD, SDS, Given, dsd
from dsd_jax.priors.gaussian import GaussianMixture, ode_solution
from dsd_jax.schedule import CLEAN, NoiseSchedule

AUTHORS = authors.recorded()
SCHEDULE = NoiseSchedule.from_config(
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
)
KEY = jax.random.key(0)
MIXTURE = GaussianMixture(
    jnp.log(jnp.array([0.3, 0.3, 0.4])),
    jnp.array([[2.0, 0.0], [-1.0, 1.5], [-1.0, -1.5]]),
    jnp.array([[0.1, 0.3], [0.2, 0.1], [0.05, 0.2]]),
)
GAUSSIAN = GaussianMixture(jnp.zeros(1), MIXTURE.mean[:1], MIXTURE.variance[:1])


# ---- the authors' gradients -------------------------------------------------------------------


def replayed(scale):
    """The golden network's answer to that question on record; NaN to any other, 1e-4 from it."""
    asked, answers = jnp.asarray(AUTHORS["asked_x_t"]), jnp.asarray(AUTHORS["answer"])

    def denoiser(x_t, t):
        same = (AUTHORS["asked_scale"] == scale) & (AUTHORS["asked_t"] == t)
        same &= (jnp.abs(x_t - asked) < 1e-4).all((1, 2, 3))
        return jnp.where(same.any(), answers[same.argmax()], jnp.nan)

    return denoiser


@pytest.mark.parametrize("i", range(6))
def test_the_authors_gradients(i):
    ours = authors.gradient(replayed, SCHEDULE, AUTHORS, i)
    authors.assert_relative(ours, AUTHORS["grad"][i])


@authors.needs_folder
def test_the_authors_gradients_with_their_network():
    """Of the whole latents, which `record` compares; and what is on record is what it was asked."""
    made = authors.record()
    assert made.keys() == AUTHORS.keys()
    for name in made.keys() - {"eps", "eps_guided"}:  # their basis has no fixed signs
        np.testing.assert_allclose(made[name], AUTHORS[name], rtol=1e-5, atol=1e-4)


# ---- the choice of t' -------------------------------------------------------------------------


@pytest.mark.parametrize("i", range(6))
def test_t_prime_is_the_authors(i):
    t, u = AUTHORS["t"][i], AUTHORS["u"][i]
    assert dsd.later(u, t, 0.1, 320, 1, 999) == AUTHORS["t_prime"][i]


@pytest.mark.parametrize(
    ("t", "settings", "expected"),
    [
        (0, (0.1, 320, 1, 999), {1}),  # lower clamp
        (5, (0.1, 320, 10, 999), {10}),
        (320, (0.1, 320, 1, 999), {320}),  # no room above the floor
        (200, (0.1, 320, 1, 999), {200}),  # nor below it
        (340, (0.1, 320, 1, 999), {340, 341}),
        (340, (0.2, 320, 1, 999), {340, 341, 342, 343}),
        (340, (0.1, 300, 1, 999), {340, 341, 342, 343}),
        (997, (0.1, 320, 1, 999), {997, 998}),  # upper clamp
        (999, (0.1, 320, 1, 999), {999}),
        (950, (0.1, 320, 1, 940), {940}),
    ],
)
def test_range_of_t_prime(t, settings, expected):
    t_prime = jax.vmap(lambda u: dsd.later(u, t, *settings))(jnp.arange(100) / 100)
    assert t_prime.dtype == jnp.int32
    assert set(t_prime.tolist()) == expected


def test_t_prime_is_drawn_from_the_key_within_its_range():
    draw = jax.jit(jax.vmap(lambda key: run(620, key=key)[1]["t_prime"]))
    t_prime = draw(jax.random.split(KEY, 256))
    assert t_prime.min() == 620 and t_prime.max() == 649  # 620 + floor(u 30)
    assert 632 < t_prime.mean() < 637


# ---- the gradient -----------------------------------------------------------------------------


def run(t, key=KEY, mixture=MIXTURE, x=None, noise=None, given=None, t_prime=None, **numbers):
    x = jnp.array([0.2, -0.4]) if x is None else x
    noise = jnp.array([1.0, -0.3]) if noise is None else noise
    denoiser_at = mixture.denoiser_at(SCHEDULE, mixture.only(0))
    given = Given(t_prime=t_prime) if given is None else given
    return DSD(**numbers).gradient(key, denoiser_at, SCHEDULE, x, noise, t, given)


def test_evaluations_are_only_those_needed():
    evaluations = []

    def denoiser_at(scale):
        def denoiser(x_t, t):
            jax.debug.callback(lambda t: evaluations.append((scale, int(t))), t)
            return MIXTURE.eps(SCHEDULE, x_t, t)

        return denoiser

    x = jnp.zeros(2)

    @jax.jit
    def step(t):
        return DSD().gradient(KEY, denoiser_at, SCHEDULE, x, x, t, Given(t_prime=t + 30))[0]

    step(650)
    jax.effects_barrier()
    expected = [(7.5, t) for t in (999, 899, 799, 699, 680, 650)] + [(1.0, 680)]
    assert sorted(evaluations) == sorted(expected)


def test_the_ode_can_be_given():
    """At t' it is asked for once; the gradient is that of following the ODE, which is not done."""
    asked = []

    def ode_at(t_prime):
        asked.append(t_prime)
        return ode.integrate(guided, SCHEDULE, noise, ode.linear_grid(), t_prime)

    noise, guided = jnp.array([1.0, -0.3]), MIXTURE.denoiser_at(SCHEDULE, MIXTURE.only(0))(7.5)
    followed, logs = run(700, noise=noise)
    given, _ = run(700, noise=noise, ode_points=2, given=Given(ode_at=ode_at))
    np.testing.assert_allclose(given, followed, rtol=1e-5)
    assert asked == [logs["t_prime"]]


@pytest.mark.parametrize("anchor", ["interpolated", "trajectory"])
def test_the_ode_leads_where_the_run_starts_and_not_where_the_lead_ends(anchor):
    """At t_max z_t lies on the ODE, whatever x is: x is drawn to one place, which that tells."""
    same = {"anchor": anchor, "guidance_scale_prime": 7.5, "t_prime_offset": 0.0}
    numbers = {"lead_until": 0.5, **same}
    given = Given(t_range=(0.98, 0.3))
    noise, guided = jnp.array([1.0, -0.3]), MIXTURE.denoiser_at(SCHEDULE, MIXTURE.only(0))(7.5)
    t, grid = 980, ode.linear_grid()
    point = ode.integrate(guided, SCHEDULE, noise, grid, t)
    for x in (jnp.array([3.0, 1.0]), jnp.array([-2.0, 0.5])):
        grad, _ = run(t, x=x, noise=noise, given=given, **numbers)
        expected = (1 - SCHEDULE.alphas_cumprod[t]) * (x - point.xhat_t) / SCHEDULE.s(t)
        np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-4)
    for t in (500, 320):
        led, _ = run(t, given=given, **numbers)
        np.testing.assert_allclose(led, run(t, given=given, **same)[0], rtol=1e-6)
    half, _ = run(740, given=given, **numbers)
    assert not np.allclose(half, run(740, given=given, **same)[0], rtol=0.1)


def on_the_ode():
    """Points of a fine grid, a noise, all of its ODE, and the index of t' = 600."""
    grid = ode.linear_grid(334)
    assert grid == tuple(range(999, -1, -3))
    noise = jnp.array([0.7, -0.9])
    points = ode.trajectory(lambda x, t: GAUSSIAN.eps(SCHEDULE, x, t), SCHEDULE, noise, grid)
    return len(grid), noise, points, grid.index(600)


def test_on_the_ode_itself_the_gradient_is_the_ode():
    """x = xhat of the seed's ODE at t': gradient = sigma_t^2 (eps_t - eps_t'), eps of the ODE."""
    count, noise, points, i = on_the_ode()
    grad, _ = run(
        597, mixture=GAUSSIAN, x=points.xhat_t[i], noise=noise, ode_points=count, t_prime=600,
        guidance_scale_prime=7.5,
    )  # fmt: skip
    difference = points.eps_t[i + 1] - points.eps_t[i]
    np.testing.assert_allclose(grad, SCHEDULE.variance(597) * difference, atol=1e-5)
    assert np.abs(difference).max() > 1e-4


@pytest.mark.parametrize("anchor", ["interpolated", "trajectory"])
def test_both_anchors_agree_on_the_ode(anchor):
    count, noise, points, i = on_the_ode()
    grad, _ = run(
        570, mixture=GAUSSIAN, x=points.xhat_t[i], noise=noise, ode_points=count, t_prime=600,
        guidance_scale_prime=7.5, anchor=anchor,
    )  # fmt: skip
    z_t = SCHEDULE.add_noise(points.xhat_t[i], points.eps_t[i], 570)
    expected = GAUSSIAN.eps(SCHEDULE, z_t, 570) - points.eps_t[i]
    np.testing.assert_allclose(grad, SCHEDULE.variance(570) * expected, atol=1e-5)


def test_the_trajectory_pulls_a_strayed_x_to_its_one_step_prediction():
    """gradient = sigma_t^2 alpha_t / sigma_t (x - xhat(z_t)), whatever t' is; t' = t included."""
    noise, x, t = jnp.array([0.7, -0.9]), jnp.array([3.0, -2.0]), 500
    grad, _ = run(t, mixture=GAUSSIAN, x=x, noise=noise, t_prime=t, anchor="trajectory")
    denoiser = lambda z, t: GAUSSIAN.eps(SCHEDULE, z, t)  # noqa: E731
    eps = ode.integrate(denoiser, SCHEDULE, noise, ode.linear_grid(), t).eps_t
    z_t = SCHEDULE.add_noise(x, eps, t)
    xhat = ode.one_step_prediction(SCHEDULE, z_t, denoiser(z_t, t), t)
    expected = SCHEDULE.sigma(t) * SCHEDULE.alpha(t) * (x - xhat)
    np.testing.assert_allclose(grad, expected, rtol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_eta_goes_from_the_ode_to_sds(eta):
    """eps = sqrt(1 - eta^2) eps_ode + eta fresh; at eta = 1 the gradient is SDS's own."""
    x, noise, t = jnp.array([0.2, -0.4]), jnp.array([1.0, -0.3]), 500
    settings = {"mixture": GAUSSIAN, "x": x, "noise": noise, "t_prime": t, "anchor": "trajectory"}
    grad, _ = run(t, eta=eta, **settings)
    denoiser = lambda z, t: GAUSSIAN.eps(SCHEDULE, z, t)  # noqa: E731
    eps_ode = ode.integrate(denoiser, SCHEDULE, noise, ode.linear_grid(), t).eps_t
    key = jax.random.fold_in(KEY, 1)
    eps = np.sqrt(1 - eta**2) * eps_ode + eta * jax.random.normal(key, x.shape)
    expected = SCHEDULE.variance(t) * (denoiser(SCHEDULE.add_noise(x, eps, t), t) - eps)
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)
    if eta == 1:
        guided = GAUSSIAN.denoiser_at(SCHEDULE, GAUSSIAN.only(0))
        fresh, _ = SDS(guidance_scale=7.5).gradient(key, guided, SCHEDULE, x, noise, t)
        np.testing.assert_allclose(grad, fresh, rtol=1e-5)


def test_x_and_noise_must_agree():
    with pytest.raises(AssertionError, match="shape"):
        run(500, noise=jnp.zeros(3))


# ---- DSD* -------------------------------------------------------------------------------------


def descend(denoiser, noise, grid):
    """Plain gradient descent of step size one on a free sample, one step for each grid point."""
    optimiser = optax.sgd(1.0)

    def step(carry, t):
        x, eps, state = carry
        grad, eps = dsd.exact_gradient(denoiser, SCHEDULE, x, eps, t)
        updates, state = optimiser.update(grad, state)
        return (optax.apply_updates(x, updates), eps, state), None

    begin = ode.start(SCHEDULE, noise, grid[0])
    carry = begin.xhat_t, begin.eps_t, optimiser.init(begin.xhat_t)
    return jax.lax.scan(step, carry, jnp.array(grid))[0][0]


def ddim(denoiser, x, grid):
    """The DDIM sample by the textbook formula, in float64 NumPy."""
    abar = np.append(np.asarray(SCHEDULE.alphas_cumprod, np.float64), 1.0)
    for t, s in zip(grid, (*grid[1:], CLEAN), strict=True):
        eps = np.asarray(denoiser(jnp.asarray(x, jnp.float32), t), np.float64)
        xhat = (x - np.sqrt(1 - abar[t]) * eps) / np.sqrt(abar[t])
        x = np.sqrt(abar[s]) * xhat + np.sqrt(1 - abar[s]) * eps
    return x


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_dsd_star_is_ddim(steps, scale):
    grid = ode.linear_grid(steps)
    denoiser = MIXTURE.denoiser_at(SCHEDULE, MIXTURE.only(0))(scale)
    noises = jax.random.normal(KEY, (8, 2))
    ours = jax.jit(jax.vmap(lambda noise: descend(denoiser, noise, grid)))(noises)
    eps = jax.jit(denoiser)
    for x, noise in zip(ours, noises, strict=True):
        np.testing.assert_allclose(x, ddim(eps, np.asarray(noise), grid), atol=1e-4)
    assert scale or ours.std(0).min() > 0.5  # seeds land apart on the unconditional mixture


def test_dsd_star_with_many_steps_solves_the_ode():
    grid = ode.linear_grid(1000)
    denoiser = lambda x_t, t: GAUSSIAN.eps(SCHEDULE, x_t, t)  # noqa: E731
    noise = jnp.array([0.7, -0.9])
    exact = ode_solution(GAUSSIAN.mean[0], GAUSSIAN.variance[0], SCHEDULE, noise, 999, CLEAN)
    np.testing.assert_allclose(descend(denoiser, noise, grid), exact, atol=0.01)


def test_the_ode_alone_can_be_left_unguided_at_high_noise():
    """With a network whose eps is w, the last prediction on the ODE tells the w it was given."""

    def denoiser_at(w):
        return lambda x, t: jnp.full_like(x, w)

    numbers = {"guidance_scale": 3.0, "ode_guidance_below": 0.7, "anchor": "trajectory"}
    x, method = jnp.zeros((2, 2, 1)), unweighted(DSD, **numbers)
    for t_prime, w_ode in ((900, 1.0), (600, 3.0)):
        given = Given(t_prime=t_prime)
        grad, _ = method.gradient(KEY, denoiser_at, SCHEDULE, x, x, 500, given)
        np.testing.assert_allclose(grad, 3.0 - w_ode, atol=1e-6)
