"""What is to be made: a prior that was told of it, and a recipe."""

import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsd_jax.engine import hosts
from dsd_jax.fields.given import GivenShape
from dsd_jax.files import elided
from dsd_jax.priors import Picture, Prior, completed
from dsd_jax.priors.base import uncompleted
from dsd_jax.recipe import elevation, method_step, presets
from dsd_jax.recipe.input_picture import InputPicture
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.viewpoints import Other, Reference, Shared


class Task(NamedTuple):
    """What all seeds share.

    Attributes:
        prior: without what only `condition` needs.
        told: the prompt, or the name of the picture.
        condition: what the prior was told.
        negative: the same of the method's `bad_prompt`, where it has one.
        reference: the picture, where there is one.
        shape: where one is given, and only colours are made.
        others: pictures of the same object.
    """

    prior: Prior
    recipe: Recipe
    told: str
    condition: Any
    negative: Any = None
    reference: Reference | None = None
    shape: GivenShape | None = None
    others: tuple[Other, ...] = ()

    @property
    def shared(self) -> Shared:
        """What the steps are given of it."""
        given = self.condition, self.negative, self.reference, self.others
        return Shared(self.prior.params, *given)


def make_task(
    prior: Prior,
    told: str | InputPicture,
    recipe: Recipe,
    shape: GivenShape | None = None,
    only_shapes: bool = False,
) -> Task:
    """The task of a prompt, or of a picture.

    Args:
        shape: to be kept, see `presets.of_shape`; of a prompt only.
        only_shapes: of what the prior was told only those, which is enough for a plan, and compiles
            nothing.

    Raises:
        ValueError: the prompt is empty, or the prior takes a picture, or has no adapter where the
            method trains one; or as `picture_task`.
    """
    if not isinstance(told, str | InputPicture):
        raise ValueError(
            "give one prompt, a str, or one picture, of read_picture, and not a "
            f"{type(told).__name__}; generate_each takes several prompts"
        )
    if not isinstance(told, str):
        if shape is not None:
            raise ValueError("a shape is given colours by a prompt, and not by a picture")
        return picture_task(prior, told, recipe, only_shapes)
    if not told.strip():
        raise ValueError('the prompt is empty; say what to make, for instance "a house"')
    recipe = recipe if shape is None else presets.of_shape(recipe, shape.cells)
    prior, words = completed(prior), recipe.condition
    _check_adapter(prior, recipe)
    tell = partial(_tell, only_shapes, prior, negative_prompt=words.negative_prompt)
    condition = tell(told, view_prompts=words.view_prompts)
    bad = recipe.method.bad_prompt
    negative = None if bad is None else tell(bad, view_prompts="none")
    return Task(prior.for_steps(), recipe, told, condition, negative, shape=shape)


def _tell(only_shapes: bool, prior: Prior, told: Any, **how: Any) -> Any:
    """What a prior makes of what it is told, or the shapes of that."""
    ask = partial(prior.condition, told, **how)
    return jax.eval_shape(ask) if only_shapes else ask()


def picture_task(
    prior: Prior, picture: InputPicture, recipe: Recipe, only_shapes: bool = False
) -> Task:
    """The task of a picture, and of others of the same object; its camera stands at azimuth 0.

    Where the picture does not say how high its camera stood, the prior estimates it, which is said
    in one line.

    Args:
        recipe: for instance `presets.of_picture(presets.quick)`.
        only_shapes: as in `make_task`; an elevation that is not said counts as 0.

    Raises:
        ValueError: the prior takes a prompt, or has no adapter where the method trains one; the
            method needs a prompt; the background is not plain.
    """
    if recipe.method.bad_prompt is not None:
        raise ValueError(
            f"method {type(recipe.method).__name__} needs a prompt for bad pictures, which a prior "
            "that takes a picture cannot read; take another method"
        )
    if recipe.render.background not in ("grey", "white"):
        raise ValueError(
            "the background of a picture is plain: --render.background grey or white, not "
            f"{recipe.render.background}"
        )
    prior = completed(prior)
    if picture.others and not prior.takes_pictures:
        raise ValueError(f"{prior_name(prior)} takes one picture; give one")
    _check_adapter(prior, recipe)
    angle_deg = picture.elevation_deg
    if angle_deg is None and only_shapes:
        angle_deg = 0.0
    elif angle_deg is None:
        angle_deg = _estimated_deg(prior, _reference(picture, 0.0), recipe)
    reference, for_steps = _reference(picture, angle_deg), prior.for_steps()
    others = tuple(_other(one, picture.azimuth_deg, angle_deg) for one in picture.others)
    told: Any = [_told(reference), *(_told(own, azimuth) for azimuth, own in others)]
    condition = _tell(only_shapes, prior, told if others else told[0])
    return Task(for_steps, recipe, picture.name, condition, None, reference, others=others)


def _reference(picture: InputPicture, elevation_deg: float) -> Reference:
    """What the steps are given of a picture."""
    angle = jnp.asarray(math.radians(elevation_deg), jnp.float32)
    depth, normal = (
        None if part is None else jnp.asarray(part) for part in (picture.depth, picture.normal)
    )
    return Reference(angle, jnp.asarray(picture.rgb), jnp.asarray(picture.mask), depth, normal)


def _told(picture: Reference, azimuth: Any = 0.0) -> Picture:
    """What the prior is told of a picture."""
    return Picture(picture.rgb, picture.elevation, picture.mask, azimuth)


def _other(picture: InputPicture, first_deg: float, usual_deg: float) -> Other:
    """Another picture, from as high as the first where it does not say it."""
    azimuth = jnp.asarray(math.radians(picture.azimuth_deg - first_deg), jnp.float32)
    high_deg = usual_deg if picture.elevation_deg is None else picture.elevation_deg
    return Other(azimuth, _reference(picture, high_deg))


def _estimated_deg(prior: Prior, picture: Reference, recipe: Recipe) -> float:
    """The elevation that the prior takes a picture to be from, or the usual one; says which."""
    found = elevation.estimate(prior, picture, recipe)
    if found is None:
        say_elevation(elevation.USUAL_DEG, "as usual: this prior cannot estimate it")
        return elevation.USUAL_DEG
    say_elevation(found, "as estimated")
    return found


def say_elevation(angle_deg: float, how: str) -> None:
    """Tell the user a picture's elevation that is not theirs."""
    if hosts.is_first():
        said = f"elevation of the picture: {angle_deg:g} degrees, {how}; --elevation-deg sets it"
        print(said, file=sys.stderr)


def warnings_of(prior: Prior, prompts: Sequence[str], recipes: Sequence[Recipe]) -> list[str]:
    """What the prior has to say of prompts, and of those that recipes lead away from, by lines."""
    away = [(own.condition.negative_prompt, own.method.bad_prompt) for own in recipes]
    negative = dict.fromkeys(text for both in away for text in both if text)
    lines = [line for prompt in prompts for line in prior.warnings(prompt)]
    return lines + [line for prompt in negative for line in prior.negative_warnings(prompt)]


def say_warnings(task: Task) -> None:
    """Tell the user what the prior has to say of the prompt, a line each."""
    if isinstance(task.told, str) and task.reference is None and hosts.is_first():
        for line in warnings_of(task.prior, [task.told], [task.recipe]):
            print(f"warning: {elided(line)}", file=sys.stderr)


def _check_adapter(prior: Prior, recipe: Recipe) -> None:
    """Let a prior without adapter say so, before it is told anything."""
    try:
        jax.eval_shape(method_step.initial(prior, recipe), jax.random.key(0))
    except ValueError as error:
        raise ValueError(str(error)) from None  # without JAX's notes


def prior_name(prior: Any) -> str:
    """How a prior is called: as it was loaded, else by its class."""
    from dsd_jax.priors import EMBEDDED

    prior = uncompleted(prior)
    folder = getattr(prior, "folder", None)
    known = {path: name for name, path in EMBEDDED.items()}
    return type(prior).__name__ if folder is None else known.get(Path(folder), str(folder))


def precision_of(prior: Any) -> str:
    """Type of the prior's networks."""
    types = {jnp.result_type(leaf).name for leaf in jax.tree.leaves(prior.params)}
    return "bfloat16" if "bfloat16" in types else "float32"
