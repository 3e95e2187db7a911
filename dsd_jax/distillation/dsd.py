"""Diverse score distillation (Xu et al., arXiv 2412.06780).

Letters as in schedule.py and ode.py, and
    t'       a timestep slightly above t
    w, w'    guidance scales of the predictions at t and at t'
Seen as one-step predictions, the probability-flow ODE that starts at one noise reads
d xhat_t = -s_t d eps_t: a difference of two noise predictions on that ODE is a gradient that
moves xhat along it. Another starting noise is another ODE and ends in another sample: the seed is
the noise. `exact_gradient` follows the ODE itself (DSD*, for one free image); `gradient` does it
for a rendering x that shares its parameters with other views and so has drifted off the ODE.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import chex
import jax
import jax.numpy as jnp

from dsd_jax import ode
from dsd_jax.distillation.common import result, with_fresh
from dsd_jax.guidance import DenoiserAt, below
from dsd_jax.schedule import NoiseSchedule


def gradient(
    key: jax.Array,
    denoiser_at: DenoiserAt,
    schedule: NoiseSchedule,
    x: jax.Array,
    seed_noise: jax.Array,
    t: jax.Array | int,
    *,
    guidance_scale: float = 7.5,
    ode_guidance_below: float | None = None,
    guidance_scale_prime: float = 1.0,
    grid: Sequence[int] = ode.linear_grid(11),
    offset_fraction: float = 0.1,
    offset_floor: int = 320,
    t_prime_min: jax.Array | int = 1,
    t_prime_max: jax.Array | int = 999,
    t_prime: jax.Array | int | None = None,
    eps_at: Callable[[jax.Array], jax.Array] | None = None,
    anchor: Literal["interpolated", "trajectory"] = "interpolated",
    eta: jax.Array | float = 0.0,
    weight=NoiseSchedule.variance,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """DSD gradient on x ([h, w, c] or [views, h, w, c]), and scalars to log.

    With eps = eps_w on the ODE of `seed_noise` at t', and z_t = alpha_t x + sigma_t eps,

        gradient = weight_t (eps_w(z_t, t) - eps_w'(z_t', t')).

    Costs `ode.steps_to(grid, t')` + 2 evaluations at w and one at w'; with `eps_at` one at w, one
    at w', and what `eps_at` asks for. The defaults are the authors' for text-to-3D with Stable
    Diffusion.

    With `anchor` "trajectory" the second prediction is eps itself, the one on the ODE. That is the
    same while x keeps to the ODE; where x has strayed the gradient is

        weight_t alpha_t / sigma_t (x - xhat_w(z_t)),

    a pull to the one-step prediction that does not fade as t' nears t. It saves one evaluation.

    With `eta` > 0 eps is the ODE's noise mixed with fresh noise,
    sqrt(1 - eta^2) eps + eta N(0, 1), as DDIM's eta mixes it into a sampler's steps (arXiv
    2010.02502, eq. 16): views that disagree are then mended by the prior. At 1, with `anchor`
    "trajectory", this is SDS.

    Args:
        key: source of the uniform draw behind t'.
        denoiser_at: guidance scale -> denoiser.
        schedule: noise schedule of the prior.
        x: encoded rendering.
        seed_noise: like x; the one noise that this object keeps for its whole life.
        t: timestep, 0 .. T-1, possibly traced.
        guidance_scale: w, at t and along the ODE.
        ode_guidance_below: the ODE is guided up to this share of T alone (None: at all t), see
            `guidance.below`.
        guidance_scale_prime: w'. Equal to w is what the theory asks for.
        grid: DDIM grid of the simulated ODE, falling from where `seed_noise` lives.
        offset_fraction, offset_floor, t_prime_min, t_prime_max: the range of t', see `later`.
            `recipe.annealing.t_prime_min` gives the authors' late rise of the lower clamp.
        t_prime: takes the place of the draw.
        eps_at: t' -> eps [...] of the seed's ODE there, in place of following it from its start.
        anchor: where the second prediction is taken, on the interpolated z_t' as published or on
            the trajectory.
        eta: share of fresh noise, 0 .. 1, possibly traced.
        weight: (schedule, t) -> scalar; the authors' 1 - abar_t.
    """
    chex.assert_equal_shape([x, seed_noise])
    x = jax.lax.stop_gradient(x)
    if t_prime is None:
        u = jax.random.uniform(key)
        t_prime = later(u, t, offset_fraction, offset_floor, t_prime_min, t_prime_max)
    denoiser = denoiser_at(guidance_scale)
    if eps_at is None:
        guided = on_ode(denoiser_at, schedule, guidance_scale, ode_guidance_below)
        eps = ode.integrate(guided, schedule, seed_noise, grid, t_prime).eps_t
    else:
        eps = eps_at(jnp.asarray(t_prime))
    eps = with_fresh(jax.random.fold_in(key, 1), eps, eta)
    eps_t = denoiser(schedule.add_noise(x, eps, t), t)
    if anchor == "interpolated":
        z_t_prime = schedule.add_noise(x, eps, t_prime)
        eps_prime = denoiser_at(guidance_scale_prime)(z_t_prime, t_prime)
    else:
        eps_prime = eps
    grad = weight(schedule, t) * (eps_t - eps_prime)
    return result(grad, x, t_prime=jnp.asarray(t_prime))


def on_ode(
    denoiser_at: DenoiserAt, schedule: NoiseSchedule, guidance_scale, ode_guidance_below=None
) -> ode.Denoiser:
    """The denoiser that the simulated ODE follows; the arguments are those of `gradient`."""
    if ode_guidance_below is not None:
        denoiser_at = below(denoiser_at, ode_guidance_below * schedule.num_train_timesteps)
    return denoiser_at(guidance_scale)


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
