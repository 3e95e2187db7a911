"""Every number of the text-to-3D recipe, and the presets.

A preset is the frozen dataclass `Settings` with some fields replaced; each field is also a flag of
`experiments/text3d.py`. Angles are degrees, "part" means a fraction of all steps.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from dsd_jax.distillation.common import Method, ViewNoise


@dataclass(frozen=True)
class Settings:
    """How one object per seed is optimised. The defaults are the preset `standard`."""

    steps: int = 600
    """Optimisation steps."""

    # Distillation.
    guidance_scale: float = 5.0
    """Classifier-free guidance of the prediction at t and of the simulated ODE."""
    ode_guidance_below: float | None = None
    """Guidance of DSD's simulated ODE acts up to this t alone, as a fraction of the prior's
    timesteps; above it is 1 (None: it acts at all t)."""
    guidance_scale_prime: float | None = None
    """Guidance of the prediction at t' (None: the method's own default)."""
    anchor: Literal["interpolated", "trajectory"] = "trajectory"
    """DSD's second prediction: at the interpolated z_t' as published, or on the trajectory."""
    eta: float = 1.0
    """Share of fresh noise in DSD's eps from `eta_at` on; from 0 at t_max it grows as t falls."""
    eta_at: float | None = None
    """t, as a fraction of the prior's timesteps, at which that share is reached (None: t_min)."""
    visible_eta: float = 0.0
    """The least share of fresh noise in views that show what single_view.py's picture shows: so
    much up to 60 degrees from it, and less and less up to 90 degrees."""
    weighting: Literal["variance", "one-step"] = "variance"
    """Weight of a gradient over t: 1 - abar_t as published, or s_t, with which it is x - xhat_t."""
    image_space: float = 0.0
    """Share of the gradient that is taken between pictures (rendered and decoded one-step
    prediction) instead of between latents; 1 never differentiates the encoder."""
    late_image_space: float | None = None
    """The same from `late_from` on (None: no change)."""
    ode_points: int = 11
    """DDIM grid points of the simulated ODE from pure noise to clean."""
    ode: Literal["exact", "nodes", "table"] = "table"
    """The seed's ODE is followed at every step as published; or once for each view bin, to keep its
    nodes, from which a step goes on to t', or a table of predictions that a step interpolates. With
    a noise attached to the surface it is always followed at every step."""
    ode_azimuth_bins: int = 16
    """View bins of the kept ODE all around the object, rounded up to a multiple of `views`."""
    ode_elevation_bins: int = 3
    """View bins from the lowest to the highest elevation, for priors with camera."""
    ode_table_points: int | None = None
    """Timesteps of the table (None: those of the simulated ODE, which cost nothing more)."""
    fresh_share: float | None = None
    """Share of fresh noise in FSD's and CFD's eps (None: the method's own, which is none)."""
    nfsd_prompt: str = (
        "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, "
        "low-resolution, gloomy"
    )
    """What NFSD takes for a bad picture; the paper's."""
    lora_rank: int = 4
    """Rank of the low-rank copy of the UNet that VSD and ASD train for each seed."""
    lora_rate: float = 0.001
    """Adam's learning rate for it. The papers' is 1e-4, for runs of 25,000 steps."""
    asd_gamma: float = -0.5
    """Weight of the second term of ASD's discriminator; 0 is VSD's."""
    t_max: float = 0.98
    """Where t starts, as a fraction of the prior's timesteps."""
    t_min: float = 0.3
    """Where t ends."""
    annealing: Literal["sqrt", "linear"] = "sqrt"
    """How t falls in between: fast at first and slowly later as published, or evenly."""
    t_prime_offset: float = 0.1
    """How far above t DSD's t' may lie, as a fraction of t - 320 (0: t' is t)."""
    views: int = 4
    """Views a step: 1, or as many as the prior denoises together, evenly spread in azimuth."""
    view_noise: ViewNoise | None = None
    """The seed noise of a view: the same for all; with several views one for each; or noise that
    sticks to the object's surface and so moves with the camera (None: the method's own)."""
    view_prompts: Literal["none", "words", "perp-neg"] = "perp-neg"
    """For priors without camera: the plain prompt; or ", front view" and so on added to it by the
    camera; or blends of these, and away from the views not to be seen, as the authors do."""
    negative_prompt: str = ""
    """The prompt that guidance leads away from."""

    # Cameras: the framing the Toybox prior was trained with.
    elevation_min_deg: float = -10.0
    elevation_max_deg: float = 45.0
    distance: float = 2.7
    fov_deg: float = 40.0

    # Rendering.
    resolution: int = 64
    """Side of the rendered view in pixels."""
    late_resolution: int = 64
    """Side of the rendered view from `late_from` on."""
    late_from: float = 0.5
    """Part of the steps after which the "late" settings hold."""
    samples: int = 32
    """Samples a ray, drawn where the occupancy grid says there is matter."""
    late_samples: int | None = None
    """The same from `late_from` on (None: no change)."""
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

    # Field.
    levels: int = 6
    """Levels of the hash grid."""
    features: int = 2
    """Features of a level."""
    log2_entries: int = 16
    """Base-2 logarithm of the entries of a level's table."""
    base_resolution: int = 12
    """Cells a side of the coarsest level."""
    growth: float = 1.5
    """Factor from one level's resolution to the next."""
    width: int = 32
    """Width of the MLP behind the grid."""
    hidden_layers: int = 1
    """Hidden layers of that MLP."""
    density: Literal["softplus", "exp"] = "exp"
    """How the field's raw output becomes density."""
    blob_scale: float = 4.0
    """Raw density that the field starts with at the centre."""
    blob_std: float = 0.5
    """Radius at which that raw density reaches 0."""
    colour_std: float = 1.0
    """Spread over seeds of the colour, before the sigmoid, that the field starts with."""
    density_floor: float = 10.0
    """What is taken off the density in the end, so that no haze stays around the surface: nothing
    until `late_from`, all of it from 0.9 of the steps on and in the results."""
    start_levels: float = 6
    """Levels open at the first step; the others open one after another until `levels_until`."""
    levels_until: float = 0.5
    """Part of the steps after which all levels are open."""

    # Optimiser: Adam (Kingma and Ba 2015).
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

    # Weights of the regularisers; 0 leaves one out. The "early" ones fall linearly to 0 at
    # `early_until`, the "late" ones grow linearly from 0 to the last step, the others are constant.
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

    # Weights of what single_view.py asks of the view from which the picture was taken.
    reference_colour: float = 5000.0
    """Colours as in the picture: mean squared difference."""
    reference_mask: float = 500.0
    """Matter where the mask says: mean squared difference of opacity and mask."""
    reference_depth: float = 50.0
    """Depth as in the depth map but for scale and offset: one minus their correlation."""
    reference_normal: float = 50.0
    """Normals as in the normal map: one minus the mean cosine."""

    # Results.
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


def phases(settings: Settings) -> list[tuple[int, Settings]]:
    """(end step, settings) of the one or two phases, which are compiled one by one."""
    share, samples = settings.late_image_space, settings.late_samples
    late = dataclasses.replace(
        settings,
        resolution=settings.late_resolution,
        image_space=settings.image_space if share is None else share,
        samples=settings.samples if samples is None else samples,
    )
    if late == settings:
        return [(settings.steps, settings)]
    return [(round(settings.late_from * settings.steps), settings), (settings.steps, late)]


def resolved(settings: Settings, method: Method) -> Settings:
    """The settings with what they leave to the method."""
    return dataclasses.replace(settings, view_noise=settings.view_noise or method.view_noise)


_STANDARD = Settings()

PRESETS: dict[str, Settings] = {
    "quick": dataclasses.replace(
        _STANDARD,
        steps=400,
        views=1,
        t_min=0.15,
        colour_std=0.0,
        final_samples=48,
        turntable_frames=36,
        turntable_resolution=160,
    ),
    "standard": _STANDARD,
    # What the authors' configuration says, for Stable Diffusion (arXiv 2412.06780).
    "authors": dataclasses.replace(
        _STANDARD,
        steps=10_000,
        ode="exact",
        colour_std=0.0,
        guidance_scale=7.5,
        anchor="interpolated",
        eta=0.0,
        t_min=0.32,
        views=1,
        resolution=128,
        late_resolution=128,
        samples=64,
        background="directional",
        shading_from=0.1,
        shading_probability=0.75,
        textureless_probability=0.75,
        levels=16,
        log2_entries=19,
        base_resolution=16,
        growth=1.447,
        width=64,
        density="softplus",
        blob_scale=10.0,
        density_floor=0.0,
        start_levels=8,
        levels_until=0.6,
        final_rate=1.0,
        sparsity=0.15,
        opaque=0.1,
        convexity=1.0,
        z_variance=1.0,
        total_variation=0.0,
        final_samples=256,
    ),
}
