"""A recipe: all that says how an object is made, but the prior, the prompt and the seed.

recipe = dataclasses.replace(recipes.quick, steps=40)
recipe = changed(recipes.quick, steps=40, levels=4, eta=0.5)      # wherever these numbers stand
recipe = with_method(recipes.standard, "sds", guidance_scale=20.0)
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dsd_jax.checks import at_least, at_most, finite
from dsd_jax.distillation import DSD, METHODS, Method, ViewNoise
from dsd_jax.fields.base import Field, completed, uncompleted
from dsd_jax.fields.radiance import HashGridField
from dsd_jax.fields.surface import SurfaceField
from dsd_jax.recipe.fitting_parts import (
    OptimiseSettings,
    ReferenceSettings,
    RefineSettings,
    RegulariseSettings,
    SurfaceSettings,
)
from dsd_jax.recipe.parts import (
    CameraSettings,
    ConditionSettings,
    OdeSettings,
    RenderSettings,
    ResultSettings,
)
from dsd_jax.rendering.scene import Background, Scene


@dataclass(frozen=True)
class Recipe:
    """How one object per seed is optimised. The defaults are `presets.standard`, unrefined.

    Hashable, so that it may be a static argument of a jitted function.

    Attributes:
        steps: optimisation steps.
        method: of distillation, one of `distillation` or your own.
        field: what is optimised, `HashGridField` or your own.
    """

    steps: int = 300
    method: Method = DSD(guidance_scale=5.0, anchor="trajectory", eta=1.0)
    field: Field = HashGridField()
    ode: OdeSettings = OdeSettings()
    condition: ConditionSettings = ConditionSettings()
    camera: CameraSettings = CameraSettings()
    render: RenderSettings = RenderSettings()
    regularise: RegulariseSettings = RegulariseSettings()
    reference: ReferenceSettings = ReferenceSettings()
    optimise: OptimiseSettings = OptimiseSettings()
    refine: RefineSettings = RefineSettings()
    surface: SurfaceSettings = SurfaceSettings()
    results: ResultSettings = ResultSettings()

    def __post_init__(self):
        object.__setattr__(self, "field", completed(self.field))
        at_least(self, "", 1, "steps")
        at_most(self, "", steps=10**9)  # that of all phases has to fit 32 bits
        for own in dataclasses.fields(self):
            finite(getattr(self, own.name), own.name)
        eta_at, t_max = getattr(self.method, "eta_at", None), self.optimise.t_max
        if eta_at is not None and eta_at >= t_max:
            raise ValueError(
                f"--method.eta-at must be below --optimise.t-max, not {eta_at} and {t_max}"
            )

    @property
    def scene(self) -> Scene:
        """The field before its background; a random background is shown as grey."""
        return self.scene_of(None)

    def scene_of(self, refining: bool | None) -> Scene:
        """The same for programs that know whether they refine; the parameters are the same."""
        background: Any = self.render.background
        shown: Background = "grey" if background == "random" else background
        numbers = self.surface
        if not self.becomes_surface:
            return Scene(self.field, shown)
        field = SurfaceField(
            self.field,
            refining,
            levels=numbers.distance_levels,
            width_first=numbers.width_first,
            width_last=numbers.width_last,
            eikonal=numbers.eikonal,
            curvature=numbers.curvature,
            closing=numbers.closing,
            settle_steps=numbers.settle_steps,
        )
        return Scene(field, shown)

    @property
    def becomes_surface(self) -> bool:
        """Whether the refinement fits a surface."""
        return self.refine.rounds > 0 and self.refine.shape == "surface"

    @property
    def total_steps(self) -> int:
        """Steps of the optimisation and of the refinement behind it."""
        return self.steps + self.refine.rounds * self.refine.fit_steps

    @property
    def view_noise(self) -> ViewNoise:
        """Where the noise of a view comes from."""
        return self.camera.view_noise or self.method.view_noise

    @property
    def keeps_ode(self) -> bool:
        """Whether the steps need the seed's ODE, kept: see `kept_ode`."""
        stays = self.ode.kind != "exact" and self.view_noise != "attached"
        return stays and self.method.follows_ode


def phases(recipe: Recipe) -> list[tuple[int, Recipe]]:
    """(end step, recipe) of the one or two phases, which are compiled one by one."""
    optimise, render = recipe.optimise, recipe.render
    share, samples = optimise.late_image_space, render.late_samples
    late = dataclasses.replace(
        recipe,
        optimise=dataclasses.replace(
            optimise, image_space=optimise.image_space if share is None else share
        ),
        render=dataclasses.replace(
            render,
            resolution=render.late_resolution,
            samples=render.samples if samples is None else samples,
        ),
    )
    if late == recipe:
        return [(recipe.steps, recipe)]
    return [(round(optimise.late_from * recipe.steps), recipe), (recipe.steps, late)]


def numbers(recipe: Recipe) -> Iterator[tuple[str, str, Any]]:
    """(part, name, value) of every number; the part of `steps` is ""."""
    for own in dataclasses.fields(recipe):
        value = uncompleted(getattr(recipe, own.name))
        if own.name == "steps" or not dataclasses.is_dataclass(value):
            yield "", own.name, value
        else:
            for inner in dataclasses.fields(value):
                yield own.name, inner.name, getattr(value, inner.name)


def part_of(recipe: Recipe, name: str) -> str:
    """In which part of the recipe a number stands: "" for the recipe itself.

    Args:
        name: as `levels`, or with its part, `field.levels`, where several have one of that name.

    Raises:
        ValueError: no part has such a number, or several have; says which.
    """
    where, dot, leaf = name.rpartition(".")
    own = [part for part, found, _ in numbers(recipe) if found == leaf]
    own = [part for part in own if part == where] if dot else own
    if len(own) == 1:
        return own[0]
    if own:
        raise ValueError(f"{name} stands in several parts of a recipe: {', '.join(own)}")
    raise ValueError(f"no part of a recipe with method {_name(recipe.method)} has a number {name}")


def changed(recipe: Recipe, **values: Any) -> Recipe:
    """The recipe with these numbers in place of its own, in whichever part they stand.

    Names are those of `part_of`. Raises ValueError where it does, and where a part refuses.
    """
    by_part: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        by_part.setdefault(part_of(recipe, name), {})[name.rpartition(".")[2]] = value
    own = by_part.pop("", {})
    parts = {
        part: dataclasses.replace(uncompleted(getattr(recipe, part)), **new)
        for part, new in by_part.items()
    }
    return dataclasses.replace(recipe, **parts, **own)


def with_method(recipe: Recipe, name: str, **values: Any) -> Recipe:
    """The recipe with another distillation method, and these numbers of it.

    Guidance and weighting stay the recipe's own; a method that the recipe has already keeps
    all its numbers.

    Raises:
        ValueError: there is no such method, or no such number of it.
    """
    if name not in METHODS:
        raise ValueError(f"--method {name!r} is not one of {', '.join(sorted(METHODS))}")
    method = recipe.method
    if type(method) is not METHODS[name]:
        shared = {own.name: getattr(method, own.name) for own in dataclasses.fields(Method)}
        method = METHODS[name](**shared)
        recipe = dataclasses.replace(recipe, method=method)
    return changed(recipe, **{f"method.{key}": value for key, value in values.items()})


def method_name(method: Method) -> str:
    """Its name at the command line; that of its class where it is a user's own."""
    return next((name for name, kind in METHODS.items() if kind is type(method)), _name(method))


def _name(method: Method) -> str:
    return type(method).__name__
