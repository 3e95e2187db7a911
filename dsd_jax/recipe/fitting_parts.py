"""The parts of a recipe that say how the field is fitted; see `parts`."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from dsd_jax.checks import at_least, at_most, fractions, known_words, positive
from dsd_jax.fields.surface import SurfaceField
from dsd_jax.schedule import MAX_TIMESTEPS


@dataclass(frozen=True)
class RegulariseSettings:
    """Weights of the regularisers; 0 leaves one out.

    The "early" ones fall linearly to 0 at `early_until`, the "late" ones grow linearly from 0 to
    the last step, the others are constant.
    """

    sparsity: float = 0.05
    """Less matter (early)."""
    convexity: float = 0.0
    """Shapes that bulge (early; costs normals)."""
    early_until: float = 0.3
    """Part of the steps after which the early regularisers are gone."""
    opaque: float = 0.3
    """Opacity either 0 or 1 (late)."""
    z_variance: float = 0.0
    """Thin surfaces (late)."""
    distortion: float = 0.0
    """Compact matter along a ray (late)."""
    entropy: float = 0.0
    """Few samples of a ray that matter (late)."""
    total_variation: float = 1.0
    """Even colours inside the object (late)."""
    normal_smoothness: float = 0.0
    """Surfaces whose normals turn little from pixel to pixel (late)."""
    orientation: float = 0.1
    """Normals that face the camera, where the run shades or asks for convexity."""
    keep_in_ball: float = 0.0
    """Matter inside a ball of radius 0.9."""

    def __post_init__(self):
        fractions(self, "regularise", "early_until")
        at_least(self, "regularise", 0, *(own.name for own in dataclasses.fields(self)))


@dataclass(frozen=True)
class ReferenceSettings:
    """Single view: what is asked of the view from which the picture was taken.

    The weights are those of terms of the loss; 0 leaves one out.
    """

    colour: float = 5000.0
    """Colours as in the picture: mean squared difference."""
    mask: float = 500.0
    """Matter where the mask says: mean squared difference of opacity and mask."""
    depth: float = 50.0
    """Depth as in the depth map but for scale and offset: one minus their correlation."""
    normal: float = 50.0
    """Normals as in the normal map: one minus the mean cosine."""
    visible_eta: float = 0.0
    """The least share of fresh noise in views that show what the picture shows: so much up to 60
    degrees from it, and less and less up to 90 degrees."""

    def __post_init__(self):
        fractions(self, "reference", "visible_eta")
        at_least(self, "reference", 0, "colour", "mask", "depth", "normal")


@dataclass(frozen=True)
class OptimiseSettings:
    """How t falls, and Adam (Kingma and Ba 2015)."""

    t_max: float = 0.98
    """Where t starts, as a fraction of the prior's timesteps."""
    t_min: float = 0.3
    """Where t ends."""
    annealing: Literal["sqrt", "linear"] = "sqrt"
    """How t falls in between: fast at first and slowly later as published, or evenly."""
    image_space: float = 0.0
    """Share of the gradient that is taken between pictures (rendered and decoded one-step
    prediction) instead of between latents; 1 never differentiates the encoder."""
    late_image_space: float | None = None
    """The same from `late_from` on (None: no change)."""
    late_from: float = 0.5
    """Part of the steps after which the "late" numbers hold, here and of rendering."""
    grid_rate: float = 0.01
    """Learning rate of the hash tables."""
    mlp_rate: float = 0.01
    """Learning rate of the MLP."""
    background_rate: float = 0.001
    """Learning rate of a learned background."""
    final_rate: float = 0.1
    """Factor on all learning rates at the last step, reached along a cosine."""
    beta1: float = 0.9
    beta2: float = 0.99
    adam_eps: float = 1e-15

    def __post_init__(self):
        known_words(self, "optimise")
        shares = ("t_min", "t_max", "image_space", "late_image_space", "late_from")
        fractions(self, "optimise", *shares)
        rates = ("grid_rate", "mlp_rate", "background_rate", "final_rate")
        at_least(self, "optimise", 0, "beta1", "beta2", *rates)
        positive(self, "optimise", "adam_eps")
        for name in ("beta1", "beta2"):
            if getattr(self, name) >= 1:
                raise ValueError(f"--optimise.{name} must be below 1, not {getattr(self, name)}")
        if self.t_min >= self.t_max:
            raise ValueError(
                f"--optimise.t-min must be below --optimise.t-max, not {self.t_min} and "
                f"{self.t_max}"
            )


@dataclass(frozen=True)
class SurfaceSettings:
    """`refine.shape` "surface": see `fields.surface`."""

    distance_levels: int = SurfaceField.levels
    """Levels of the distance's hash grid."""
    width_first: float = SurfaceField.width_first
    """Width of the surface, in world units, at the first step of the refinement."""
    width_last: float = SurfaceField.width_last
    """The same at the last one."""
    eikonal: float = SurfaceField.eikonal
    """Weight of gradients of length 1."""
    curvature: float = SurfaceField.curvature
    """Weight of folds."""
    closing: int = SurfaceField.closing
    """Pores up to twice so many 32nds of the radius wide are closed at the start."""
    settle_steps: int = SurfaceField.settle_steps
    """Steps of the fit to distillation's shape at the start."""

    def __post_init__(self):
        at_least(self, "surface", 1, "distance_levels", "settle_steps")
        at_most(self, "surface", distance_levels=24, closing=64, settle_steps=10**6)
        at_least(self, "surface", 0, "eikonal", "curvature", "closing")
        if not 0 < self.width_last <= self.width_first:
            raise ValueError(
                "--surface.width-last must lie above 0 and not above --surface.width-first, not "
                f"{self.width_last} and {self.width_first}"
            )


@dataclass(frozen=True)
class RefineSettings:
    """Refinement after distillation, see `recipe.refine`: rounds of targets and a fit to them."""

    rounds: int = 0
    """Rounds; 0 leaves refinement out."""
    shape: Literal["density", "surface"] = "density"
    """What is fitted: the density as distillation left it, or a surface around it."""
    fit_steps: int = 100
    """Steps of the fit in each round."""
    t_first: float = 0.8
    """t up to which targets are noised in the first round, as a fraction of the timesteps."""
    t_last: float = 0.1
    """The same in the last round; in between it falls evenly."""
    noise: Literal["ode", "fresh"] = "ode"
    """Where the noise of targets comes from: the seed's ODE, or it is drawn anew."""
    fresh: float = 1.0
    """Share of fresh noise in that of the ODE from `fresh_at` on; from 0 at `t_first` it grows."""
    fresh_at: float = 0.25
    """t, as a fraction of the timesteps, at which that share is reached."""
    groups: int = 4
    """Groups of targets around the object."""
    group_views: int = 4
    """Views of a group, denoised together where the prior does so."""
    ddim_steps: int = 12
    """DDIM steps from noise to a target."""
    target_guidance: float | None = None
    """Guidance of targets (None: the method's)."""
    target_rescale: float = 0.5
    """Share of what guidance does to their contrast that is taken back."""
    target_resolution: int | None = None
    """Side of the renderings that targets start from, in pixels (None: the prior's own)."""
    target_samples: int = 64
    """Samples a ray in the renderings that targets start from."""
    rays: int = 2048
    """Random rays of a step of the fit."""
    focus: float = 0.0
    """Share of them that go where matter is, or is to be; the others go anywhere."""
    fit_samples: int = 64
    """Samples a ray in the fit."""
    fit_rate: float = 0.01
    """Adam's learning rate of the field in the fit."""
    fit_final_rate: float = 0.1
    """Factor on it at the last step, reached along a cosine."""
    fit_opaque: float = 0.003
    """Weight of the entropy of opacity: either 0 or 1."""
    colour_pull: float = 1.0
    """Share of the colours' pull on the shape where targets tell opacity, which shapes it too:
    less keeps what is painted on a wall from being dug into it."""
    refresh_every: int = 20
    """Steps of the fit between two refreshes of the occupancy grid."""
    picture_share: float = 0.2
    """Single view: share of the rays that go through the picture."""

    def __post_init__(self):
        known_words(self, "refine")
        at_least(self, "refine", 0, "rounds", "fit_rate", "fit_final_rate", "fit_opaque")
        counts = ("fit_steps", "groups", "group_views", "target_resolution", "target_samples",
                  "rays", "fit_samples", "refresh_every")  # fmt: skip
        at_least(self, "refine", 1, *counts)
        shares = ("t_first", "t_last", "fresh", "fresh_at", "target_rescale", "focus",
                  "picture_share", "colour_pull")  # fmt: skip
        fractions(self, "refine", *shares)
        at_least(self, "refine", 2, "ddim_steps")
        most = {"rounds": 1000, "groups": 1000, "group_views": 64, "fit_steps": 10**6}
        at_most(self, "refine", **most, ddim_steps=MAX_TIMESTEPS)
        if not 0 < self.t_last <= self.t_first:
            raise ValueError(
                "--refine.t-last must lie above 0 and not above --refine.t-first, not "
                f"{self.t_last} and {self.t_first}"
            )
