"""Diverse score distillation (Xu et al., arXiv 2412.06780).

Letters as in schedule.py and ode.py, and
    t'       a timestep slightly above t
    w, w'    guidance scales of the predictions at t and at t'
Seen as one-step predictions, the probability-flow ODE that starts at one noise reads
d xhat_t = -s_t d eps_t: a difference of two noise predictions on that ODE is a gradient that
moves xhat along it. Another starting noise is another ODE and ends in another sample: the seed is
the noise. `exact_gradient` follows the ODE itself (DSD*, for one free image); `DSD.gradient` does
it for a rendering x that shares its parameters with other views and so has drifted off the ODE.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import chex
import jax
import jax.numpy as jnp

from dsd_jax import ode
from dsd_jax.checks import at_least, at_most, fractions
from dsd_jax.distillation.base import NOTHING, Given, Method
from dsd_jax.distillation.common import result, with_fresh
from dsd_jax.guidance import DenoiserAt, below
from dsd_jax.schedule import MAX_TIMESTEPS, NoiseSchedule

Anchor = Literal["interpolated", "trajectory"]


@dataclass(frozen=True)
class DSD(Method):
    """Diverse score distillation. The defaults are the authors' for Stable Diffusion."""

    guidance_scale: float = 7.5
    """w, at t and along the simulated ODE."""
    guidance_scale_prime: float = 1.0
    """w', of the prediction at t'. Equal to w is what the theory asks for."""
    anchor: Anchor = "interpolated"
    """Where the second prediction is taken: at the interpolated z_t' as published, or on the
    trajectory."""
    eta: float = 0.0
    """Share of fresh noise in eps from `eta_at` on; over a run it grows from 0 as t falls."""
    eta_at: float | None = None
    """t, as a fraction of the prior's timesteps, at which that share is reached (None: where the
    run ends)."""
    ode_points: int = 11
    """DDIM grid points of the simulated ODE from pure noise to clean."""
    ode_guidance_below: float | None = None
    """Guidance of the simulated ODE acts up to this t alone, as a fraction of the prior's
    timesteps; above it is 1 (None: it acts at all t)."""
    lead_until: float | None = None
    """t, as a fraction of the prior's timesteps, down to which the ODE's own one-step prediction
    stands in for x: wholly where the run starts, then less and less (None: it never does)."""
    t_prime_offset: float = 0.1
    """How far above t t' may lie, as a fraction of t - `t_prime_floor` (0: t' is t)."""
    t_prime_floor: float = 0.32
    """t, as a fraction of the prior's timesteps, up to which t' is t."""
    t_prime_min: int = 1
    """The least timestep t'."""
    t_prime_min_late: int = 10
    """The same late in a run."""
    t_prime_late_from: float = 0.75
    """Square root of the part of a run's steps after which it is late."""

    follows_ode: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "method", 2, "ode_points")
        at_most(self, "method", ode_points=MAX_TIMESTEPS)
        at_least(self, "method", 0, "t_prime_min", "t_prime_min_late")
        shares = ("t_prime_offset", "t_prime_floor", "t_prime_late_from")
        fractions(self, "method", "eta", "eta_at", "lead_until", "ode_guidance_below", *shares)

    def ode_grid(self, schedule: NoiseSchedule) -> tuple[int, ...]:
        """Falling timesteps of the simulated ODE, from T-1, where the seed's noise lives, to 0."""
        return ode.linear_grid(self.ode_points, schedule.last)

    def ode_denoiser(self, denoiser_at: DenoiserAt, schedule: NoiseSchedule) -> ode.Denoiser:
        """The denoiser that the simulated ODE follows; its guidance is limited by `below`."""
        if self.ode_guidance_below is not None:
            limit = self.ode_guidance_below * schedule.num_train_timesteps
            denoiser_at = below(denoiser_at, limit)
        return denoiser_at(self.guidance_scale)

    def gradient(
        self,
        key: jax.Array,
        denoiser_at: DenoiserAt,
        schedule: NoiseSchedule,
        x: jax.Array,
        seed_noise: jax.Array,
        t: jax.Array | int,
        given: Given = NOTHING,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """DSD gradient on x, and scalars to log, t' among them: see `Method.gradient`.

        With eps = eps_w on the ODE of `seed_noise` at t', and z_t = alpha_t x + sigma_t eps,

            gradient = weight_t (eps_w(z_t, t) - eps_w'(z_t', t')).

        Costs `ode.steps_to(grid, t')` + 2 evaluations at w and one at w'; with `given.ode_at` one
        at w, one at w', and what `ode_at` asks for.

        With `anchor` "trajectory" the second prediction is eps itself, the one on the ODE. That is
        the same while x keeps to the ODE; where x has strayed the gradient is

            weight_t alpha_t / sigma_t (x - xhat_w(z_t)),

        a pull to the one-step prediction that does not fade as t' nears t. It saves one evaluation.

        With `eta` > 0 eps is the ODE's noise mixed with fresh noise,
        sqrt(1 - eta^2) eps + eta N(0, 1), as DDIM's eta mixes it into a sampler's steps (arXiv
        2010.02502, eq. 16): views that disagree are then mended by the prior. At 1, with `anchor`
        "trajectory", this is SDS.

        With `lead_until` z_t and z_t' are made of y = x + lambda (xhat_t' - x) in place of x, xhat
        being that of the ODE, and weight_t alpha_t / sigma_t (x - y) is added, so that with
        `anchor` "trajectory" x is drawn to xhat_w(z_t) as before. Where the run starts lambda is 1
        and z_t lies on the ODE; it falls to 0. Even at T a latent's mean colour shines through the
        noise, and a rendering that is not on its ODE yet would choose the colour, not the seed.
        """
        chex.assert_equal_shape([x, seed_noise])
        x = jax.lax.stop_gradient(x)
        t_prime = given.t_prime
        if t_prime is None:
            t_prime = self.draw_t_prime(key, schedule, t, given.progress)
        denoiser = denoiser_at(self.guidance_scale)
        if given.ode_at is None:
            guided, grid = self.ode_denoiser(denoiser_at, schedule), self.ode_grid(schedule)
            point = ode.integrate(guided, schedule, seed_noise, grid, t_prime)
        else:
            point = given.ode_at(jnp.asarray(t_prime))
        fresh = jax.random.fold_in(key, 1)
        eps = with_fresh(fresh, point.eps_t, self.eta_now(schedule, t, given))
        y = x
        if self.lead_until is not None:
            t_max = given.t_range[0] if given.t_range else 1.0
            y = x + (1 - _fallen(schedule, t, t_max, self.lead_until)) * (point.xhat_t - x)
        eps_t = denoiser(schedule.add_noise(y, eps, t), t)
        if self.anchor == "interpolated":
            z_t_prime = schedule.add_noise(y, eps, t_prime)
            eps_prime = denoiser_at(self.guidance_scale_prime)(z_t_prime, t_prime)
        else:
            eps_prime = eps
        grad = eps_t - eps_prime
        if self.lead_until is not None:
            grad = grad + (x - y) / schedule.s(t)
        grad = self.weight(schedule, t) * grad
        return result(grad, x, t_prime=jnp.asarray(t_prime))

    def draw_t_prime(
        self, key: jax.Array, schedule: NoiseSchedule, t: jax.Array | int, progress=None
    ) -> jax.Array:
        """t', at or above t, evenly drawn from the range of `later`; the arguments are scalars."""
        floor = round(self.t_prime_floor * schedule.num_train_timesteps)
        least = self.t_prime_min
        if progress is not None:
            late = jnp.sqrt(progress) > self.t_prime_late_from
            least = jnp.where(late, self.t_prime_min_late, least)
        u = jax.random.uniform(key)
        return later(u, t, self.t_prime_offset, floor, least, schedule.last)

    def eta_now(self, schedule: NoiseSchedule, t: jax.Array | int, given: Given = NOTHING):
        """Share of fresh noise at t, a scalar: `eta`, and on the way to `eta_at` in proportion.

        The way starts where the run does, `given.t_range`; `given.least_eta` is the least.
        """
        eta = self.eta
        if given.t_range is not None:
            t_max, t_min = given.t_range
            eta_at = t_min if self.eta_at is None else self.eta_at
            eta = eta * _fallen(schedule, t, t_max, eta_at)
        least = given.least_eta
        return jnp.maximum(eta, least) if isinstance(least, jax.Array) or least else eta


def _fallen(schedule: NoiseSchedule, t, high: float, low: float) -> jax.Array:
    """Share of the way from `high` down to `low`, fractions of T, that is behind t: 0 .. 1."""
    way = max(high - low, 1e-6)
    return jnp.clip((high - t / schedule.num_train_timesteps) / way, 0.0, 1.0)


def later(u, t, fraction, floor, t_min, t_max) -> jax.Array:
    """Timestep t' >= t at the share u, in [0, 1), of the way from t to t + fraction (t - floor).

    Both ends are clamped to [t_min, t_max] before u is applied; below the floor the way is empty.
    All arguments are scalars, traced or not; the result is rounded down.
    """
    low = jnp.clip(t, t_min, t_max)
    high = jnp.clip(t + fraction * jnp.maximum(t - floor, 0), t_min, t_max)
    return low + jnp.floor(u * (high - low)).astype(low.dtype)


def exact_gradient(
    denoiser: ode.Denoiser,
    schedule: NoiseSchedule,
    x: jax.Array,
    eps: jax.Array,
    t: jax.Array | int,
) -> tuple[jax.Array, jax.Array]:
    """DSD*: gradient on a free image x [...] = xhat, and eps_t [...] to hand to the next call.

    With eps the prediction of the call before, at some t' > t,

        gradient = s_t (eps_t - eps),   eps_t = eps(alpha_t x + sigma_t eps, t),

    so that plain descent at step size 1, x - gradient, is the DDIM step t' -> t. Start from
    `ode.start(schedule, seed_noise, T)`: its xhat_t is the first x, its eps_t the first eps; then
    one call for each grid point, grid[0] = T included, ends in the DDIM sample.
    """
    x, eps = jax.lax.stop_gradient((x, eps))
    eps_t = denoiser(schedule.add_noise(x, eps, t), t)
    return jax.lax.stop_gradient((schedule.s(t) * (eps_t - eps), eps_t))
