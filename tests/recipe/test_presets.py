"""Recipes by name."""

import math

import pytest

from dsd_jax.distillation import SDS
from dsd_jax.recipe import presets
from dsd_jax.recipe.presets import PRESETS, framed, of_picture, quick, standard
from dsd_jax.recipe.recipe import Recipe, changed, numbers, phases, with_method

# What `quick` has in place of what `standard` has, copied by hand.
QUICK = {
    "steps": 320, "method.lead_until": 0.5, "camera.views": 1, "ode.azimuth_bins": 8,
    "render.resolution": 32, "render.late_resolution": 32,
    "refine.rounds": 3, "refine.t_first": 0.7, "refine.t_last": 0.3, "refine.fit_steps": 200,
    "refine.groups": 3, "refine.rays": 1024,
    "refine.focus": 0.75, "refine.fit_samples": 24, "refine.ddim_steps": 8,
    "refine.target_samples": 32, "refine.target_resolution": 64,
    "results.final_samples": 24, "results.turntable_frames": 36,
    "results.turntable_resolution": 160,
}  # fmt: skip
# The numbers of dsd_jax 0.1 that differ from those of the plain recipe.
AUTHORS = {
    "steps": 10_000, "ode.kind": "exact", "method.guidance_scale": 7.5,
    "method.anchor": "interpolated", "method.eta": 0.0, "optimise.t_min": 0.32,
    "optimise.final_rate": 1.0, "camera.views": 1, "render.resolution": 128,
    "render.late_resolution": 128, "render.samples": 64, "render.background": "directional",
    "render.shading_from": 0.1, "render.shading_probability": 0.75,
    "render.textureless_probability": 0.75, "field.levels": 16, "field.log2_entries": 19,
    "field.base_resolution": 16, "field.growth": 1.447, "field.width": 64,
    "field.density": "softplus", "field.blob_scale": 10.0, "field.colour_std": 0.0,
    "field.density_floor": 0.0, "field.start_levels": 8, "field.levels_until": 0.6,
    "regularise.sparsity": 0.15, "regularise.opaque": 0.1, "regularise.convexity": 1.0,
    "regularise.z_variance": 1.0, "regularise.total_variation": 0.0, "results.final_samples": 256,
}  # fmt: skip
# And what the plain recipe is, where another number would be as likely.
STANDARD = {
    "steps": 300, "method.guidance_scale": 5.0, "method.guidance_scale_prime": 1.0,
    "method.anchor": "trajectory", "method.eta": 1.0, "method.eta_at": None,
    "method.ode_points": 11, "method.t_prime_offset": 0.1, "ode.kind": "table",
    "ode.azimuth_bins": 16, "ode.elevation_bins": 3, "ode.table_points": None,
    "optimise.t_max": 0.98, "optimise.t_min": 0.3, "optimise.annealing": "sqrt",
    "optimise.late_from": 0.5, "optimise.grid_rate": 0.01, "optimise.mlp_rate": 0.01,
    "optimise.background_rate": 0.001, "optimise.final_rate": 0.1, "optimise.beta1": 0.9,
    "optimise.beta2": 0.99, "optimise.adam_eps": 1e-15, "camera.views": 4,
    "camera.view_noise": None, "camera.elevation_min_deg": -10.0, "camera.elevation_max_deg": 45.0,
    "camera.distance": 2.7, "camera.fov_deg": 40.0, "condition.view_prompts": "perp-neg",
    "render.resolution": 64, "render.samples": 32, "render.occupancy_resolution": 32,
    "render.occupancy_every": 16, "render.background": "grey", "render.shading_from": 1.0,
    "field.levels": 6, "field.features": 2, "field.log2_entries": 16, "field.base_resolution": 12,
    "field.growth": 1.5, "field.width": 32, "field.hidden_layers": 1, "field.density": "exp",
    "field.blob_scale": 4.0, "field.blob_std": 0.5, "field.colour_std": 1.0,
    "field.density_floor": 10.0, "field.start_levels": 6, "field.levels_until": 0.5,
    "regularise.sparsity": 0.05, "regularise.early_until": 0.3, "regularise.opaque": 0.3,
    "regularise.total_variation": 1.0, "regularise.orientation": 0.1, "reference.colour": 5000.0,
    "reference.mask": 500.0, "reference.depth": 50.0, "reference.normal": 50.0,
    "reference.visible_eta": 0.0, "results.final_samples": 96, "results.turntable_frames": 72,
    "results.turntable_resolution": 256, "results.turntable_seconds": 3.0,
}  # fmt: skip


def flat(recipe):
    return {f"{part}.{name}" if part else name: value for part, name, value in numbers(recipe)}


def differences(recipe, other):
    """The numbers of `recipe` that `other` has not."""
    return {name: value for name, value in flat(recipe).items() if value != flat(other)[name]}


# What `standard` has besides since objects are refined.
REFINED = {
    "method.guidance_rescale": 0.3, "method.lead_until": 0.3, "regularise.opaque": 1.0,
    "refine.rounds": 6, "refine.colour_pull": 0.2,
    "refine.fit_steps": 150, "refine.groups": 8, "refine.rays": 4096, "refine.fresh": 0.7,
    "refine.shape": "surface", "refine.t_first": 0.6,
    "refine.fit_opaque": 0.02, "refine.fit_samples": 96, "refine.target_samples": 96,
}  # fmt: skip


def test_presets_are_what_was_measured():
    found = flat(Recipe())
    assert {name: found[name] for name in STANDARD} == STANDARD
    assert differences(PRESETS["quick"], standard) == QUICK
    assert differences(PRESETS["authors"], Recipe()) == AUTHORS
    assert differences(standard, Recipe()) == REFINED


@pytest.mark.parametrize("name", PRESETS)
def test_how_many_programs_a_preset_compiles(name):
    """`best` ends at a higher resolution."""
    assert PRESETS[name] == getattr(presets, name)
    assert len(phases(PRESETS[name])) == (2 if name == "best" else 1)


def test_the_recipe_of_a_picture():
    found = of_picture(quick)
    assert differences(found, quick) == {
        "method.guidance_scale": 2.0, "method.eta": 0.0, "reference.visible_eta": 1.0,
        "method.lead_until": None, "refine.colour_pull": 1.0, "refine.t_first": 0.8,
        "refine.t_last": 0.1,
        "regularise.total_variation": 100.0, "render.background": "white",
        "condition.view_prompts": "none",
    }  # fmt: skip
    rescaled = SDS(guidance_scale=2.0, guidance_rescale=0.3)
    assert of_picture(with_method(quick, "sds")).method == rescaled
    assert of_picture(quick, 40.0) == found


@pytest.mark.parametrize("fov_deg", [20.0, 49.1, 60.0])
def test_another_field_of_view_spans_as_much(fov_deg):
    camera = framed(changed(quick, distance=5.0), fov_deg).camera
    assert camera.fov_deg == fov_deg
    spanned = camera.distance * math.tan(math.radians(fov_deg / 2))
    assert spanned == pytest.approx(2.7 * math.tan(math.radians(20)))


def test_the_usual_field_of_view_has_the_usual_distance():
    assert framed(changed(quick, distance=5.0), 40.0) == quick
    with pytest.raises(ValueError, match=r"--camera\.fov-deg must lie inside 0\.\.180, not 200"):
        framed(quick, 200)
