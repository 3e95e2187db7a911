"""Consistent flow distillation (Yan et al., arXiv 2501.05445).

Letters as in schedule.py, w being the guidance scale. The gradient of FSD,

    weight_t (eps_w(z_t, t) - eps),    z_t = alpha_t x + sigma_t eps,

with a noise eps that is consistent over views: unit Gaussian noise that lies on the object's
surface, so that the ODEs of all views carry the same noise to the same place
(`rendering.surface_noise`; that is this method's `view_noise`). A share of fresh noise turns
the ODE into an SDE. The authors mix in none (their `sqrt_beta` is 1); their SDE has the noise of
the surface itself change, by 2e-4 of its variance a step at the most, which is left out here.
"""

from dataclasses import dataclass
from typing import ClassVar

from dsd_jax.distillation.base import ViewNoise
from dsd_jax.distillation.fsd import FSD


@dataclass(frozen=True)
class CFD(FSD):
    """Consistent flow distillation: FSD with noise that lies on the object's surface."""

    guidance_scale: float = 50.0
    """w; the authors' 50 is for MVDream (75 for Stable Diffusion, 7 in 2D)."""

    view_noise: ClassVar[ViewNoise] = "attached"
