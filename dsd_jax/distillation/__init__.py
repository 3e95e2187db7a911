"""Distillation methods: pure functions from a sample to the gradient that a prior wants on it.

All share one signature,

    gradient(key, denoiser_at, schedule, x, seed_noise, t, *, ...) -> (gradient like x, aux),

for one x of [h, w, c] or [views, h, w, c] and one timestep t, possibly traced. `aux` is a dict of
scalars worth logging; every method reports "gradient_norm". To descend, pull the gradient back
through the renderer with `jax.vjp`. What a method takes by keyword it is given under these names:
settings (`recipe.method_step.method_settings`), and, because a method asks for them,

    learned     guidance scale -> denoiser of the adapted network that the method trains
    negative    denoiser of a prompt for bad pictures
    eps_at      t' -> noise of the seed's ODE, where a run keeps it

A method that trains a network has besides

    init(key, adapter, *, ...) -> state          adapter: key -> weights that change nothing yet
    update(key, state, learned_at, schedule, x, t, *, ...) -> (state, aux)

`state` is a pytree with the adapter's `weights`, `learned_at` goes from weights to `learned`, and
`update`, called after every step with all its views, may ask for the prior's `denoiser_at` by
keyword. A new method costs one file and one line here.
"""

from dsd_jax.distillation import asd, cfd, csd, dsd, fsd, ism, nfsd, sdi, sds, vsd
from dsd_jax.distillation.common import Method

METHODS: dict[str, Method] = {
    "sds": Method(sds.gradient),
    "csd": Method(csd.gradient),
    "nfsd": Method(nfsd.gradient),
    "ism": Method(ism.gradient),
    "vsd": Method(vsd.gradient, vsd.init, vsd.update),
    "asd": Method(asd.gradient, asd.init, asd.update),
    "sdi": Method(sdi.gradient),
    "fsd": Method(fsd.gradient),
    "cfd": Method(cfd.gradient, view_noise="attached"),
    "dsd": Method(dsd.gradient),
}
