"""Recipes by name, from fast to good; `dsd_jax.recipes`.

    draft      see whether the prompt works
    quick      what a CPU starts from
    standard   what an accelerator starts from
    best       more steps and finer pictures
    authors    what the authors' configuration says, for Stable Diffusion (arXiv 2412.06780)

How long each takes stands in experiments/README.md. `of_picture` makes of a recipe for a prompt one
for a picture, `of_shape` one for colours on a given shape.
"""

import dataclasses
import math

from dsd_jax.distillation import DSD
from dsd_jax.fields.given import CELLS, GivenField
from dsd_jax.fields.radiance import HashGridField
from dsd_jax.recipe.fitting_parts import OptimiseSettings, RegulariseSettings
from dsd_jax.recipe.parts import OdeSettings, RenderSettings, ResultSettings
from dsd_jax.recipe.recipe import Recipe, changed

standard = changed(
    Recipe(),
    **{"method.guidance_rescale": 0.3, "method.lead_until": 0.3},
    opaque=1.0,
    rounds=6,
    shape="surface",
    t_first=0.6,
    fit_steps=150,
    groups=8,
    rays=4096,
    fit_samples=96,
    target_samples=96,
    fresh=0.7,
    fit_opaque=0.02,
    colour_pull=0.2,
)

quick = changed(
    standard,
    **{"method.lead_until": 0.5},
    steps=320,
    views=1,
    azimuth_bins=8,
    resolution=32,
    late_resolution=32,
    rounds=3,
    t_first=0.7,
    t_last=0.3,
    fit_steps=200,
    groups=3,
    rays=1024,
    focus=0.75,
    fit_samples=24,
    ddim_steps=8,
    target_samples=32,
    target_resolution=64,
    final_samples=24,
    turntable_frames=36,
    turntable_resolution=160,
)

draft = changed(quick, steps=120, rounds=2, turntable_frames=18, turntable_resolution=128)

best = changed(standard, steps=1500, late_resolution=96, samples=48, rounds=8)

authors = Recipe(
    steps=10_000,
    method=DSD(guidance_scale=7.5),
    field=HashGridField(
        levels=16,
        log2_entries=19,
        base_resolution=16,
        growth=1.447,
        width=64,
        density="softplus",
        blob_scale=10.0,
        colour_std=0.0,
        density_floor=0.0,
        start_levels=8,
        levels_until=0.6,
    ),
    ode=OdeSettings(kind="exact"),
    camera=dataclasses.replace(standard.camera, views=1),
    render=RenderSettings(
        resolution=128,
        late_resolution=128,
        samples=64,
        background="directional",
        shading_from=0.1,
        shading_probability=0.75,
        textureless_probability=0.75,
    ),
    regularise=RegulariseSettings(
        sparsity=0.15, opaque=0.1, convexity=1.0, z_variance=1.0, total_variation=0.0
    ),
    optimise=OptimiseSettings(t_min=0.32, final_rate=1.0),
    results=ResultSettings(final_samples=256),
)

# Regularisers of matter.
_SHAPING = (
    "sparsity", "convexity", "opaque", "z_variance", "distortion", "entropy", "normal_smoothness",
    "orientation", "keep_in_ball",
)  # fmt: skip

PRESETS: dict[str, Recipe] = {
    "draft": draft,
    "quick": quick,
    "standard": standard,
    "best": best,
    "authors": authors,
}


def of_picture(recipe: Recipe, fov_deg: float | None = None) -> Recipe:
    """The recipe for an object that a picture shows: white behind it, and less guidance.

    The seed's ODE is followed to the end, but for views that show what the picture shows.

    Args:
        fov_deg: vertical field of view of the prior's training pictures; the distance becomes such
            that the frame spans as much of the world (None: the recipe's own framing).
    """
    values = {
        "method.guidance_scale": 2.0,
        "reference.visible_eta": 1.0,
        "refine.t_first": 0.8,
        "refine.t_last": 0.1,
        "refine.colour_pull": 1.0,
        "regularise.total_variation": 100.0,
        "render.background": "white",
        "condition.view_prompts": "none",
    }
    if isinstance(recipe.method, DSD):
        values |= {"method.eta": 0.0, "method.lead_until": None}
    recipe = changed(recipe, **values)
    return recipe if fov_deg is None else framed(recipe, fov_deg)


def of_shape(recipe: Recipe, cells: int = CELLS) -> Recipe:
    """The recipe for colours on a shape that is given on a grid of cells, see `fields.given`.

    Without what asks for another shape, and without light, which would tell nothing of colours.
    """
    if isinstance(recipe.field, GivenField):
        return recipe
    recipe = changed(
        recipe, **{"refine.shape": "density", "refine.fit_opaque": 0.0, "render.shading_from": 1.0}
    )
    shaped = dict.fromkeys(_SHAPING, 0.0)
    weights = dataclasses.replace(recipe.regularise, **shaped)
    return dataclasses.replace(recipe, field=GivenField(recipe.field, cells), regularise=weights)


def framed(recipe: Recipe, fov_deg: float) -> Recipe:
    """The recipe seen with another field of view, from where the frame spans as much."""
    usual = standard.camera
    distance = usual.distance
    if 0 < fov_deg < 180 and fov_deg != usual.fov_deg:
        spanned = usual.distance * math.tan(math.radians(usual.fov_deg / 2))
        distance = spanned / math.tan(math.radians(fov_deg / 2))
    return changed(recipe, **{"camera.fov_deg": fov_deg, "camera.distance": distance})
