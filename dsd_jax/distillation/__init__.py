"""Distillation methods: pure functions from a sample to the gradient that a prior wants on it.

All share one signature,

    gradient(key, denoiser_at, schedule, x, seed_noise, t, *, ...) -> (gradient like x, aux),

for one x of [h, w, c] or [views, h, w, c] and one timestep t, possibly traced. `aux` is a dict of
scalars worth logging; every method reports "gradient_norm". To descend, pull the gradient back
through the renderer with `jax.vjp`. A new method costs one file and one line here.
"""

from dsd_jax.distillation import csd, dsd, fsd, ism, sdi, sds

METHODS = {
    "dsd": dsd.gradient,
    "sds": sds.gradient,
    "csd": csd.gradient,
    "ism": ism.gradient,
    "sdi": sdi.gradient,
    "fsd": fsd.gradient,
}
