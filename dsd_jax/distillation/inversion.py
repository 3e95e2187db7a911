"""DDIM inversion: the ODE backwards, from a sample to the noise that leads there."""

import jax

from dsd_jax import ode
from dsd_jax.schedule import NoiseSchedule


def invert(
    denoiser: ode.Denoiser, schedule: NoiseSchedule, x: jax.Array, t: jax.Array | int, steps: int
) -> jax.Array:
    """x_t [...] on the ODE that ends in the clean x [...], by `steps` equal DDIM steps up to t.

    A step a -> b asks for eps at a, the noise of the lower end (Song et al. 2021, arXiv
    2010.02502, section 4.3; Mokady et al., arXiv 2211.09794); x counts as the sample at t = 0.
    Costs `steps` evaluations; t, 0 .. T-1, may be traced.
    """

    def up(i, z):
        low, high = t * i // steps, t * (i + 1) // steps
        return ode.ddim_step(schedule, z, denoiser(z, low), low, high)

    return jax.lax.fori_loop(0, steps, up, x)
