"""Guidance: one eps network and several conditionings become one denoiser.

Letters: w is the guidance scale, and everywhere in this package

    eps_w = eps_uncond + w (eps_text - eps_uncond),

so w = 0 is unconditional, w = 1 is plain text, w > 1 exaggerates the text. threestudio, in which
the authors' code is written, has two definitions: with Perp-Neg its w is ours; without, it
computes text + w (text - uncond), so its w is our w + 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsd_jax.ode import Denoiser
from dsd_jax.schedule import NoiseSchedule, left_aligned

# guidance scale (a Python float, a traced scalar, or `Rescaled`) -> Denoiser
DenoiserAt = Callable[[Any], Denoiser]

# (x_t [n, ...], t [n], conditioning: pytree of [n, ...]) -> eps [n, ...]
Network = Callable[[jax.Array, jax.Array, Any], jax.Array]


class Rescaled(NamedTuple):
    """A guidance scale, and how much of what guidance does to the contrast is taken back.

    Attributes:
        scale: w.
        share: r of `rescaled`.
        schedule: of the prior.
    """

    scale: Any
    share: float
    schedule: NoiseSchedule


def rescaled(denoiser_at: DenoiserAt, share: float, schedule: NoiseSchedule) -> DenoiserAt:
    """Guidance whose one-step prediction keeps the contrast of the unguided one.

    With xhat of eps_w and xhat_text of eps_text, and the deviations over a whole sample, its views
    together,

        xhat <- r xhat std(xhat_text) / std(xhat) + (1 - r) xhat

    (Lin et al. 2023, arXiv 2305.08891, section 3.4, as MVDream's code does it), r being `share`; at
    0 `denoiser_at` itself. It asks the network for nothing more.
    """
    if not share:
        return denoiser_at

    def at(guidance_scale) -> Denoiser:
        plain = _is(guidance_scale, 0.0) or _is(guidance_scale, 1.0)
        return denoiser_at(guidance_scale if plain else Rescaled(guidance_scale, share, schedule))

    return at


def at_temperature(
    denoiser_at: DenoiserAt, k: float, sigma: float, schedule: NoiseSchedule
) -> DenoiserAt:
    """Every prediction as if the data were spread more widely (k < 1) or more narrowly (k > 1).

    With the data's own deviation taken to be `sigma`, and abar = alpha_t^2,

        eps <- eps (abar sigma^2 + 1 - abar) / (abar sigma^2 / k + 1 - abar)

    (temporal score rescaling, arXiv 2510.01184): exact for a Gaussian, whose variance it divides
    by k; of a mixture it changes the modes' width and keeps their shares. At k = 1 `denoiser_at`
    itself.
    """
    if k == 1:
        return denoiser_at

    def at(guidance_scale) -> Denoiser:
        denoiser = denoiser_at(guidance_scale)

        def denoise(x_t, t):
            signal, noise = jnp.square(schedule.alpha(t) * sigma), schedule.variance(t)
            return denoiser(x_t, t) * ((signal + noise) / (signal / k + noise))

        return denoise

    return at


def _guided(guidance_scale, x_t, t, eps_text, eps_uncond, direction) -> jax.Array:
    """eps_uncond + w direction, rescaled where the scale says so."""
    if not isinstance(guidance_scale, Rescaled):
        return eps_uncond + guidance_scale * direction
    scale, share, schedule = guidance_scale
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    xhat = (x_t - sigma * (eps_uncond + scale * direction)) / alpha
    contrast = jnp.std((x_t - sigma * eps_text) / alpha) / jnp.maximum(jnp.std(xhat), 1e-6)
    return (x_t - alpha * xhat * (share * contrast + 1 - share)) / sigma


def classifier_free(network: Network, text: Any, uncond: Any) -> DenoiserAt:
    """eps_uncond + w (eps_text - eps_uncond) (Ho and Salimans 2022, arXiv 2207.12598).

    `text` and `uncond` are unbatched conditionings of one structure. Both go through one network
    call of 2; at w = 1 the text goes alone, at w = 0 the unconditional.
    """

    def denoiser_at(guidance_scale: float) -> Denoiser:
        def denoiser(x_t, t):
            if _is(guidance_scale, 1.0):
                return _evaluate(network, x_t, t, _stack(text))[0]
            if _is(guidance_scale, 0.0):
                return _evaluate(network, x_t, t, _stack(uncond))[0]
            eps_text, eps_uncond = _evaluate(network, x_t, t, _stack(text, uncond))
            return _guided(guidance_scale, x_t, t, eps_text, eps_uncond, eps_text - eps_uncond)

        return denoiser

    return denoiser_at


def perp_neg(
    network: Network, text: Any, uncond: Any, negatives: Any, weights: Float[Array, " k"]
) -> DenoiserAt:
    """Classifier-free guidance pushed away from negative prompts (Perp-Neg, arXiv 2304.04968).

    With d = eps_text - eps_uncond, n_i = eps_negative_i - eps_uncond and |_ d the part of n_i
    orthogonal to d, each image [h, w, c] by itself:

        eps_w = eps_uncond + w (d + sum_i weights_i (n_i |_ d)),     weights_i <= 0.

    `negatives` is the structure of `text` with a leading axis k. All k + 2 conditionings go through
    one network call, at w = 1 as well, where the negatives still act; at w = 0 only `uncond` does.
    """

    def denoiser_at(guidance_scale: float) -> Denoiser:
        def denoiser(x_t, t):
            if _is(guidance_scale, 0.0):
                return _evaluate(network, x_t, t, _stack(uncond))[0]
            pair = _stack(text, uncond)
            batch = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), pair, negatives)
            eps = _evaluate(network, x_t, t, batch)
            direction, away = eps[0] - eps[1], eps[2:] - eps[1]
            push = jnp.sum(left_aligned(weights, away) * _orthogonal(away, direction), 0)
            return _guided(guidance_scale, x_t, t, eps[0], eps[1], direction + push)

        return denoiser

    return denoiser_at


def below(denoiser_at: DenoiserAt, t_high) -> DenoiserAt:
    """Guidance at timesteps up to `t_high` alone; above it w = 1, the plain text.

    Guidance at high noise pulls all samples to a few of the prompt's modes; below, it sharpens the
    one that was chosen (limited-interval guidance, Kynkaanniemi et al. 2024, arXiv 2404.07724).
    """

    def limited_at(guidance_scale) -> Denoiser:
        def denoiser(x_t, t):
            scale = jnp.where(jnp.asarray(t) > t_high, 1.0, guidance_scale)
            return denoiser_at(scale)(x_t, t)

        return denoiser

    return limited_at


class ViewPrompts(NamedTuple):
    """What `perp_neg` needs for one camera: `text` [...], `negatives` [2, ...], `weights` [2]."""

    text: Any
    negatives: Any
    weights: Float[Array, " 2"]


def blend_views(
    side: Any, front: Any, back: Any, overhead: Any, azimuth_deg, elevation_deg
) -> ViewPrompts:
    """The authors' Perp-Neg prompts for a camera, from the conditionings of four view prompts.

    Up to 90 degrees from the front (azimuth 0, positive or negative, traced or not) the text runs
    linearly from front to side, beyond from side to back; the views that the camera should not
    show are pushed away with weights that are exponentials of the angle. Above 60 degrees of
    elevation the text is `overhead`, without negatives.
    """
    azimuth = jnp.abs(jnp.mod(jnp.asarray(azimuth_deg) + 180.0, 360.0) - 180.0)
    is_front, is_overhead = azimuth <= 90.0, jnp.asarray(elevation_deg) > 60.0
    nearness = 1.0 - jnp.where(is_front, azimuth, azimuth - 90.0) / 90.0  # 1 at the first view

    def text(side, front, back, overhead):
        first, second = jnp.where(is_front, front, side), jnp.where(is_front, side, back)
        return jnp.where(is_overhead, overhead, nearness * first + (1.0 - nearness) * second)

    def negatives(side, front):
        return jnp.where(is_front, jnp.stack([front, side]), jnp.stack([side, front]))

    decay, opposite = jnp.exp(-0.5 * nearness), jnp.exp(-0.5 * (1.0 - nearness))
    in_front = jnp.stack([4.0 * decay - 2.426, 4.0 * opposite - 2.426])
    behind = jnp.stack([decay - 0.606, decay + 0.967])
    weights = jnp.where(is_overhead, 0.0, -jnp.where(is_front, in_front, behind))
    return ViewPrompts(
        jax.tree.map(text, side, front, back, overhead),
        jax.tree.map(negatives, side, front),
        weights,
    )


def _is(guidance_scale, value: float) -> bool:
    """Whether the scale is known, when compiling, to be `value`."""
    return not isinstance(guidance_scale, jax.Array) and guidance_scale == value


def _stack(*conditionings: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *conditionings)


def _evaluate(network: Network, x_t: jax.Array, t: jax.Array, conditioning: Any) -> jax.Array:
    """eps [n, *x_t.shape] of one x_t under n conditionings, at least float32."""
    n = jax.tree.leaves(conditioning)[0].shape[0]
    eps = network(jnp.broadcast_to(x_t, (n, *x_t.shape)), jnp.broadcast_to(t, (n,)), conditioning)
    return eps.astype(jnp.promote_types(x_t.dtype, jnp.float32))


def _orthogonal(a: jax.Array, b: jax.Array) -> jax.Array:
    """The part of a [k, ..., h, w, c] orthogonal to b [..., h, w, c], image by image."""
    axes = tuple(range(-min(b.ndim, 3), 0))
    along = jnp.sum(a * b, axes, keepdims=True)
    length = jnp.sum(b * b, axes, keepdims=True)
    return a - along / jnp.maximum(length, jnp.finfo(b.dtype).tiny) * b
