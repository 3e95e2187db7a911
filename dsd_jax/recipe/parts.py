"""The parts of a recipe: every number of one step, by what it is about.

A part is a frozen dataclass that checks itself; each of its numbers is a flag of the command line
too, --render.samples for instance. Angles are degrees; "part of the steps" is a fraction of all
steps. A method's own numbers stand in `distillation`, a field's in `fields`.
"""

from dataclasses import dataclass
from typing import Literal

from dsd_jax.checks import at_least, at_most, fractions, known_words
from dsd_jax.distillation import ViewNoise
from dsd_jax.rendering.cameras import DISTANCE, FOV_DEG
from dsd_jax.schedule import MAX_TIMESTEPS


@dataclass(frozen=True)
class OdeSettings:
    """How the ODE of a seed is followed (its grid and guidance are numbers of the method)."""

    kind: Literal["exact", "nodes", "table"] = "table"
    """At every step as published; or once for each view bin, to keep its nodes, from which a step
    goes on to t', or a table of predictions that a step interpolates. With a noise attached to the
    surface it is always followed at every step."""
    azimuth_bins: int = 16
    """View bins of the kept ODE all around the object, rounded up to a multiple of the views."""
    elevation_bins: int = 3
    """View bins from the lowest to the highest elevation, for priors that are told the camera."""
    table_points: int | None = None
    """Timesteps of the table (None: those of the simulated ODE, which cost nothing more)."""

    def __post_init__(self):
        known_words(self, "ode")
        at_least(self, "ode", 1, "azimuth_bins", "elevation_bins")
        if self.table_points is not None and self.table_points < 3:
            raise ValueError(f"--ode.table-points must be at least 3, not {self.table_points}")
        at_most(self, "ode", azimuth_bins=1000, elevation_bins=1000, table_points=MAX_TIMESTEPS)


@dataclass(frozen=True)
class ConditionSettings:
    """What the prior is told beside the prompt."""

    negative_prompt: str = ""
    """The prompt that guidance leads away from."""
    view_prompts: Literal["none", "words", "perp-neg"] = "perp-neg"
    """For priors without camera: the plain prompt; or ", front view" and so on added to it by the
    camera; or blends of these, and away from the views not to be seen, as the authors do."""

    def __post_init__(self):
        known_words(self, "condition")


@dataclass(frozen=True)
class CameraSettings:
    """From where the object is seen. The framing is that of the Toybox prior's training."""

    views: int = 4
    """Views a step: 1, or as many as the prior denoises together, evenly spread in azimuth."""
    view_noise: ViewNoise | None = None
    """The seed noise of a view: the same for all; with several views one for each; or noise that
    sticks to the object's surface and so moves with the camera (None: the method's own)."""
    elevation_min_deg: float = -10.0
    elevation_max_deg: float = 45.0
    distance: float = DISTANCE
    """Of the camera from the centre; the object fills a ball of radius 1."""
    fov_deg: float = FOV_DEG
    """Vertical field of view."""
    fixed_until: float | None = None
    """t, as a fraction of the prior's timesteps, down to which several views that are denoised
    together are the same in every step, so that a seed follows one ODE (None: never)."""

    def __post_init__(self):
        known_words(self, "camera")
        fractions(self, "camera", "fixed_until")
        at_least(self, "camera", 1, "views")
        at_most(self, "camera", views=64)
        if not -90 < self.elevation_min_deg <= self.elevation_max_deg < 90:
            raise ValueError(
                "--camera.elevation-min-deg and --camera.elevation-max-deg must ascend inside "
                f"-90..90, not {self.elevation_min_deg} and {self.elevation_max_deg}"
            )
        if not self.distance > 1.0:
            raise ValueError(
                f"--camera.distance must exceed the object's radius 1, not {self.distance}"
            )
        if not 0 < self.fov_deg < 180:
            raise ValueError(f"--camera.fov-deg must lie inside 0..180, not {self.fov_deg}")


@dataclass(frozen=True)
class RenderSettings:
    """How a step renders its views."""

    resolution: int = 64
    """Side of the rendered view in pixels."""
    late_resolution: int = 64
    """Side of the rendered view from `optimise.late_from` on."""
    samples: int = 32
    """Samples a ray, drawn where the occupancy grid says there is matter."""
    late_samples: int | None = None
    """The same from `optimise.late_from` on (None: no change)."""
    occupancy_resolution: int = 32
    """Cells a side of the occupancy grid."""
    occupancy_every: int = 16
    """Steps between two refreshes of the occupancy grid."""
    background: Literal["grey", "white", "colour", "directional", "random"] = "grey"
    """Plain grey 0.8, plain white, one learned colour, a learned colour for each direction, or a
    random grey or colour for every view of a step. Results are shown on plain grey."""
    shading_from: float = 1.0
    """Part of the steps after which a point light may shade the object (1: never)."""
    shading_probability: float = 0.3
    """How often it does then."""
    textureless_probability: float = 0.5
    """How often a shaded view is rendered without colour."""

    def __post_init__(self):
        known_words(self, "render")
        counts = ("resolution", "late_resolution", "samples", "late_samples",
                  "occupancy_resolution", "occupancy_every")  # fmt: skip
        at_least(self, "render", 1, *counts)
        shares = ("shading_from", "shading_probability", "textureless_probability")
        fractions(self, "render", *shares)


@dataclass(frozen=True)
class ResultSettings:
    """Pictures of the finished objects, and of those that grow."""

    final_samples: int = 96
    """Samples a ray in the final pictures."""
    turntable_frames: int = 72
    """Pictures of a turn."""
    turntable_resolution: int = 256
    """Side of the turntable's pictures in pixels."""
    turntable_seconds: float = 3.0
    """How long a turn lasts."""
    preview_resolution: int = 64
    """Side of the pictures on the contact sheet while the run goes on."""
    preview_seconds: float = 30.0
    """Seconds between two refreshes of the contact sheet."""

    def __post_init__(self):
        counts = ("final_samples", "turntable_frames", "turntable_resolution",
                  "preview_resolution")  # fmt: skip
        at_least(self, "results", 1, *counts)
        if not self.turntable_seconds > 0:
            raise ValueError(
                f"--results.turntable-seconds must be positive, not {self.turntable_seconds}"
            )
        at_least(self, "results", 0.01, "turntable_seconds")
        at_least(self, "results", 0, "preview_seconds")
