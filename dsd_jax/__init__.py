"""dsd_jax: diverse score distillation in pure JAX.

A seed is a noise, a noise is an ODE, an ODE is a 3D object; everything else is a pure
function of those, vmapped over seeds.

    import dsd_jax as dsd

    prior = dsd.load_prior("toybox")
    objects = dsd.generate(prior, "a house", seeds=range(8), recipe=dsd.recipes.quick)
    objects.save("runs/house")

What stands here is what users name; nothing is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# Public name -> the module that it stands in, or is.
_HOMES = {
    "load_prior": "priors",
    "Prior": "priors.base",
    "Viewpoint": "priors.base",
    "Picture": "priors.base",
    "Field": "fields.base",
    "HashGridField": "fields.radiance",
    "Method": "distillation",
    "Given": "distillation",
    "Recipe": "recipe.recipe",
    "changed": "recipe.recipe",
    "with_method": "recipe.recipe",
    "generate": "engine.generate",
    "generate_each": "engine.generate",
    "read_picture": "recipe.input_picture",
    "read_pictures": "recipe.input_pictures",
    "read_shape": "data.given_mesh",
    "load_objects_of": "engine.saved",
    "Objects": "engine.objects",
    "Devices": "engine.plan",
    "MeshSettings": "export.mesh",
    "SplatSettings": "export.splats",
    "classifier_free": "guidance",
    "perp_neg": "guidance",
    "NoiseSchedule": "schedule",
    "seed_noise": "recipe.state",
    "viewpoint_at": "recipe.viewpoints",
    "sample_views": "studies.batch",
    "set_up_jax": "cli.validate",
}
_MODULES = {
    "methods": "distillation",
    "recipes": "recipe.presets",
    "ode": "ode",
    "guidance": "guidance",
}

if TYPE_CHECKING:
    from dsd_jax import distillation as methods
    from dsd_jax import guidance, ode
    from dsd_jax.cli.validate import set_up_jax
    from dsd_jax.data.given_mesh import read_shape
    from dsd_jax.distillation import Given, Method
    from dsd_jax.engine.generate import generate, generate_each
    from dsd_jax.engine.objects import Objects
    from dsd_jax.engine.plan import Devices
    from dsd_jax.engine.saved import load_objects_of
    from dsd_jax.export.mesh import MeshSettings
    from dsd_jax.export.splats import SplatSettings
    from dsd_jax.fields.base import Field
    from dsd_jax.fields.radiance import HashGridField
    from dsd_jax.guidance import classifier_free, perp_neg
    from dsd_jax.priors import load_prior
    from dsd_jax.priors.base import Picture, Prior, Viewpoint
    from dsd_jax.recipe import presets as recipes
    from dsd_jax.recipe.input_picture import read_picture
    from dsd_jax.recipe.input_pictures import read_pictures
    from dsd_jax.recipe.recipe import Recipe, changed, with_method
    from dsd_jax.recipe.state import seed_noise
    from dsd_jax.recipe.viewpoints import viewpoint_at
    from dsd_jax.schedule import NoiseSchedule
    from dsd_jax.studies.batch import sample_views

__all__ = [
    "Devices", "Field", "Given", "HashGridField", "MeshSettings", "Method", "NoiseSchedule",
    "Objects", "Picture", "Prior", "Recipe", "SplatSettings", "Viewpoint", "changed",
    "classifier_free", "generate", "generate_each", "guidance", "load_objects_of", "load_prior",
    "methods", "ode", "perp_neg", "read_picture", "read_pictures", "read_shape", "recipes",
    "sample_views", "seed_noise", "set_up_jax", "viewpoint_at", "with_method",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"dsd_jax.{_MODULES[name]}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"dsd_jax.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dsd_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
