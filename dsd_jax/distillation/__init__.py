"""Distillation methods: from a sample to the gradient that a prior wants on it.

A method is a frozen dataclass of its own numbers with one pure function,

    gradient(key, denoiser_at, schedule, x, seed_noise, t, given) -> (gradient like x, logs),

for one x of [h, w, c] or [views, h, w, c] and one timestep t, possibly traced; `jax.vmap` makes it
many seeds. `Method.gradient` says what the arguments are, `Given` what a run may know beside.

A method of your own is one file:

    @dataclass(frozen=True)
    class Target(Method):
        \"\"\"Straight to the sample that the seed's ODE leads to.\"\"\"

        strength: float = 1.0
        \"\"\"Factor on the gradient.\"\"\"

        def gradient(self, key, denoiser_at, schedule, x, seed_noise, t, given=NOTHING):
            denoiser, grid = self.ode_denoiser(denoiser_at, schedule), self.ode_grid(schedule)
            xhat = ode.integrate(denoiser, schedule, seed_noise, grid, t).xhat_t
            grad = self.weight(schedule, t) * self.strength * (x - xhat) / schedule.s(t)
            return result(grad, x)

Hand `Target(strength=0.5)` to a recipe; or add the class to `METHODS` here, then `--method target`
works in every program, `--method.strength` is a flag, and tests/distillation/test_contract.py
tests it. A method that trains a network beside is a `TrainedMethod`, see `vsd`.
"""

from dsd_jax.distillation.asd import ASD
from dsd_jax.distillation.base import NOTHING, Given, Method, ViewNoise, Weighting
from dsd_jax.distillation.cfd import CFD
from dsd_jax.distillation.common import noised, result, with_fresh
from dsd_jax.distillation.csd import CSD
from dsd_jax.distillation.dsd import DSD
from dsd_jax.distillation.fsd import FSD
from dsd_jax.distillation.ism import ISM
from dsd_jax.distillation.learned import Learned, TrainedMethod
from dsd_jax.distillation.nfsd import NFSD
from dsd_jax.distillation.sdi import SDI
from dsd_jax.distillation.sds import SDS
from dsd_jax.distillation.sim import SIM
from dsd_jax.distillation.vsd import VSD

METHODS: dict[str, type[Method]] = {
    "sds": SDS,
    "csd": CSD,
    "nfsd": NFSD,
    "ism": ISM,
    "vsd": VSD,
    "asd": ASD,
    "sim": SIM,
    "sdi": SDI,
    "fsd": FSD,
    "cfd": CFD,
    "dsd": DSD,
}

__all__ = [
    "ASD", "CFD", "CSD", "DSD", "FSD", "ISM", "METHODS", "NFSD", "NOTHING", "SDI", "SDS", "SIM",
    "VSD", "Given", "Learned", "Method", "TrainedMethod", "ViewNoise", "Weighting", "noised",
    "result", "with_fresh",
]  # fmt: skip
