"""What `experiments/ablate.py` compares: variant -> what it changes of the preset.

"method" is the name of the distillation method, everything else a number of the recipe, as
`recipe.changed` takes it. Both sides of a choice are rows, so that the table stays whole when a
default changes.
"""

from typing import Any

from dsd_jax.recipe.recipe import Recipe, changed, method_name, with_method

Changes = dict[str, Any]


def _four(**changes) -> Changes:
    """With four views a step."""
    return {"views": 4, **changes}


def _sds(guidance_scale: float, **changes) -> Changes:
    """By SDS."""
    return {"method": "sds", "guidance_scale": guidance_scale, **changes}


def _interpolated(guidance_scale_prime: float) -> Changes:
    """DSD's second prediction as published."""
    return {"anchor": "interpolated", "guidance_scale_prime": guidance_scale_prime}


def _kept(mode: str, azimuths: int) -> Changes:
    """The ODE kept in so many bins around the object."""
    return {"ode.kind": mode, "azimuth_bins": azimuths}


def _pixels(early: int, late: int) -> Changes:
    """Sides of the rendered view."""
    return {"resolution": early, "late_resolution": late}


_VIEWS: dict[str, Changes] = {
    "one view": {"views": 1},
    "one view, attached noise": {"views": 1, "view_noise": "attached"},
    "four views": _four(),
    "four views, own noises": _four(view_noise="own"),
    "four views, attached noise": _four(view_noise="attached"),
    "four views, eta 0": _four(eta=0.0),
    "four views, eta 0, attached noise": _four(eta=0.0, view_noise="attached"),
}

_DISTILLATION: dict[str, Changes] = {
    "eta 0": {"eta": 0.0},
    "eta 0, attached noise": {"eta": 0.0, "view_noise": "attached"},
    "eta 0.5": {"eta": 0.5},
    "eta 1": {"eta": 1.0},
    "guidance 2": {"guidance_scale": 2.0},
    "guidance 3.5": {"guidance_scale": 3.5},
    "guidance 5": {"guidance_scale": 5.0},
    "guidance 7.5": {"guidance_scale": 7.5},
    "guidance 10": {"guidance_scale": 10.0},
    "ODE guided at all t": {"ode_guidance_below": None},
    "ODE guided below 0.7": {"ode_guidance_below": 0.7},
    "ODE guided below 0.5": {"ode_guidance_below": 0.5},
    "ODE exact": {"ode.kind": "exact"},
    "ODE nodes": {"ode.kind": "nodes"},
    "ODE nodes, 8 azimuths": _kept("nodes", 8),
    "ODE table": {"ode.kind": "table"},
    "ODE table, 32 azimuths": _kept("table", 32),
    "ODE table, 24 points": {"ode.kind": "table", "table_points": 24},
    "ODE table, 8 azimuths": _kept("table", 8),
    "eta 1 from t = 0.5": {"eta": 1.0, "eta_at": 0.5},
    "interpolated, w' = 1 (published)": _interpolated(1.0),
    "interpolated, w' = 5": _interpolated(5.0),
    "trajectory": {"anchor": "trajectory", "guidance_scale_prime": 1.0},
    "variance weighting": {"weighting": "variance"},
    "one-step weighting": {"weighting": "one-step"},
    "half in image space": {"image_space": 0.5},
    "late in image space": {"late_image_space": 1.0},
    "late half in image space": {"late_image_space": 0.5},
    "t down to 0.05": {"t_min": 0.05},
    "t down to 0.15": {"t_min": 0.15},
    "t down to 0.3": {"t_min": 0.3},
    "linear annealing": {"annealing": "linear"},
    "sqrt annealing": {"annealing": "sqrt"},
    "t' offset 0": {"t_prime_offset": 0.0},
    "t' offset 0.1": {"t_prime_offset": 0.1},
    "t' offset 0.3": {"t_prime_offset": 0.3},
}

_REGULARISERS: dict[str, Changes] = {
    "no sparsity": {"sparsity": 0.0},
    "no opaque": {"opaque": 0.0},
    "no regularisers": {"opaque": 0.0, "sparsity": 0.0, "orientation": 0.0},
    "sparsity 0.05, opaque 0.3": {"sparsity": 0.05, "opaque": 0.3},
    "strong regularisers": {"opaque": 10.0, "sparsity": 2.0},
    "convexity 0.3": {"convexity": 0.3},
    "z variance 10": {"z_variance": 10.0},
    "distortion 3": {"distortion": 3.0},
    "entropy 0.1": {"entropy": 0.1},
    "keep in ball 10": {"keep_in_ball": 10.0},
    "total variation 1": {"total_variation": 1.0},
    "total variation 10": {"total_variation": 10.0},
    "normal smoothness 0.3": {"normal_smoothness": 0.3},
    "normal smoothness 3": {"normal_smoothness": 3.0},
}

_FIELD: dict[str, Changes] = {
    "exp density": {"density": "exp", "blob_scale": 4.0},
    "softplus density": {"density": "softplus", "blob_scale": 10.0},
    "blob scale 2": {"blob_scale": 2.0},
    "blob scale 8": {"blob_scale": 8.0},
    "blob std 0.3": {"blob_std": 0.3},
    "blob std 0.5": {"blob_std": 0.5},
    "density floor 0": {"density_floor": 0.0},
    "density floor 5": {"density_floor": 5.0},
    "density floor 20": {"density_floor": 20.0},
    "initial colour random": {"colour_std": 1.0},
    "initial colour random, strongly": {"colour_std": 2.0},
    "all levels open": {"start_levels": 8},
    "start levels 4": {"start_levels": 4},
}

_RENDERING: dict[str, Changes] = {
    "grey background": {"background": "grey"},
    "learned background": {"background": "colour"},
    "directional background": {"background": "directional"},
    "random background": {"background": "random"},
    "64 then 96 pixels": _pixels(64, 96),
    "96 pixels": _pixels(96, 96),
    "128 pixels": {**_pixels(128, 128), "samples": 48},
    "32 then 96 samples": {"samples": 32, "late_samples": 96},
    "48 samples": {"samples": 48, "late_samples": None},
}

_OPTIMISER: dict[str, Changes] = {
    "grid rate 0.003": {"grid_rate": 0.003},
    "grid rate 0.01": {"grid_rate": 0.01},
    "grid rate 0.03": {"grid_rate": 0.03},
    "mlp rate 0.003": {"mlp_rate": 0.003},
    "mlp rate 0.01": {"mlp_rate": 0.01},
    "mlp rate 0.03": {"mlp_rate": 0.03},
    "beta2 0.99": {"beta2": 0.99},
    "beta2 0.999": {"beta2": 0.999},
    "final rate 0.01": {"final_rate": 0.01},
    "final rate 0.1": {"final_rate": 0.1},
    "final rate 1": {"final_rate": 1.0},
    "500 steps": {"steps": 500},
    "1000 steps": {"steps": 1000},
}

_SDS: dict[str, Changes] = {
    "sds 5": _sds(5.0),
    "sds 7.5": _sds(7.5),
    "sds 10": _sds(10.0),
    "sds 20": _sds(20.0),
    "sds 7.5, four views": _sds(7.5, views=4),
    "sds 10, four views": _sds(10.0, views=4),
    "sds 15, four views": _sds(15.0, views=4),
}

_REFINEMENT: dict[str, Changes] = {
    "unrefined": {"rounds": 0},
    "unrefined, no rescale": {"rounds": 0, "guidance_rescale": 0.0, "opaque": 0.3},
    "4 groups": {"groups": 4, "rays": 2048, "fit_steps": 100},
    "64 samples in the fit": {"fit_samples": 64, "target_samples": 64},
    "rays where matter is": {"focus": 0.75},
    "fresh noise alone": {"noise": "fresh"},
    "fresh 0.5": {"fresh": 0.5},
    "fresh 1": {"fresh": 1.0},
    "t0 from 0.5": {"t_first": 0.5},
    "t0 from 0.8": {"t_first": 0.8},
    "targets' guidance 7.5": {"target_guidance": 7.5},
    "targets' rescale 0.75": {"target_rescale": 0.75},
    "24 DDIM steps": {"ddim_steps": 24},
    "opacity entropy 0.003": {"fit_opaque": 0.003},
    "600 steps before": {"steps": 600},
    "150 steps before": {"steps": 150, "t_min": 0.5},
    "sds 7.5, fresh noise": _sds(7.5, noise="fresh", target_guidance=5.0),
    "sds 7.5, its seed's ODE": _sds(7.5, target_guidance=5.0),
}

VARIANTS: dict[str, Changes] = {
    "default": {},
    **_VIEWS,
    **_DISTILLATION,
    **_REGULARISERS,
    **_FIELD,
    **_RENDERING,
    **_OPTIMISER,
    **_SDS,
    **_REFINEMENT,
}


def recipe_of(name: str, recipe: Recipe) -> Recipe:
    """The recipe of a variant of `recipe`.

    Raises ValueError where that has no such number, or refuses it.
    """
    changes = dict(VARIANTS[name])
    method = changes.pop("method", method_name(recipe.method))
    return changed(with_method(recipe, method), **changes)
