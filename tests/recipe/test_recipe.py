"""A recipe: its numbers by name, its phases, and what follows from it."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsd_jax.checks import flag
from dsd_jax.distillation import CFD, DSD, METHODS, NFSD, SDS, VSD, Method, result
from dsd_jax.fields.base import uncompleted
from dsd_jax.recipe.presets import PRESETS, quick, standard
from dsd_jax.recipe.recipe import (
    Recipe,
    changed,
    method_name,
    numbers,
    part_of,
    phases,
    with_method,
)


@dataclass(frozen=True)
class Voxels:
    """A field of one's own, two of whose numbers have names that other parts have, too."""

    resolution: int = 8
    samples: int = 3

    def init(self, key): ...
    def apply(self, params, points): ...


class Mine(Method):
    """A method of one's own."""

    def gradient(self, key, denoiser_at, schedule, x, seed_noise, t, given=None):
        return result(x, x)


OWN = dataclasses.replace(standard, field=Voxels(), method=Mine())


# ---- numbers by name -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part"),
    [("steps", ""), ("levels", "field"), ("field.levels", "field"), ("eta", "method"),
     ("samples", "render"), ("kind", "ode"), ("t_min", "optimise"), ("visible_eta", "reference")],
)  # fmt: skip
def test_where_a_number_stands(name, part):
    assert part_of(standard, name) == part


@pytest.mark.parametrize(
    ("recipe", "name", "said"),
    [
        (standard, "sample", "no part of a recipe with method DSD has a number sample"),
        (standard, "camera.samples",
         "no part of a recipe with method DSD has a number camera.samples"),
        (standard, "lora_rank", "no part of a recipe with method DSD has a number lora_rank"),
        (standard, "method", "no part of a recipe with method DSD has a number method"),
        (OWN, "samples", "samples stands in several parts of a recipe: field, render"),
    ],
    ids=str,
)  # fmt: skip
def test_a_name_that_is_none_or_that_of_several_is_refused(recipe, name, said):
    for asked in (lambda: part_of(recipe, name), lambda: changed(recipe, **{name: 4})):
        with pytest.raises(ValueError) as caught:
            asked()
        assert str(caught.value) == said


def test_numbers_are_changed_in_whichever_part_they_stand():
    found = changed(standard, steps=40, samples=4, levels=2, eta=0.0, late_samples=8)
    assert found == dataclasses.replace(
        standard,
        steps=40,
        render=dataclasses.replace(standard.render, samples=4, late_samples=8),
        field=dataclasses.replace(standard.field, levels=2),
        method=dataclasses.replace(standard.method, eta=0.0),
    )
    assert changed(standard) == standard
    own = changed(OWN, **{"field.samples": 5, "render.samples": 6})
    assert uncompleted(own.field) == Voxels(samples=5)
    assert own.render.samples == 6 and own.field.stage(0.5) is None


def other(kind: Any, value: Any) -> st.SearchStrategy[Any]:
    """Values of a number's type, most of which a part takes."""
    kinds = [kind, *get_args(kind)]
    words = [word for one in kinds if get_origin(one) is Literal for word in get_args(one)]
    if words:
        return st.sampled_from(words)
    if float in kinds or isinstance(value, float):
        return st.floats(-1, 2, width=32)
    return st.text(max_size=9) if str in kinds else st.integers(-1, 200)


@given(st.data())
def test_every_number_of_every_preset_can_be_changed_and_no_other_is(data):
    """Or is refused in one line that names its flag; the old value brings the old recipe back."""
    recipe = data.draw(st.sampled_from(list(PRESETS.values())))
    part, name, old = data.draw(st.sampled_from(list(numbers(recipe))))
    hints = get_type_hints(type(getattr(recipe, part) if part else recipe))
    value = data.draw(other(hints[name], old))
    key = f"{part}.{name}" if part else name
    try:
        found = changed(recipe, **{key: value})
    except ValueError as error:
        spelt = f"--{flag(part, name)}" if part else f"--{name}"
        assert spelt in str(error) and "\n" not in str(error)
        return
    expected = {(p, n): v for p, n, v in numbers(recipe)} | {(part, name): value}
    assert {(p, n): v for p, n, v in numbers(found)} == expected
    assert changed(found, **{key: old}) == recipe


# ---- what a recipe refuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"steps": 3 * 10**9}, "--steps must be at most 1000000000, not 3000000000"),
        ({"eta_at": 0.98}, "--method.eta-at must be below --optimise.t-max, not 0.98 and 0.98"),
        ({"eta": 1.5}, "--method.eta must lie in 0..1, not 1.5"),
        ({"density_floor": -1.0}, "--field.density-floor must not be negative, not -1.0"),
    ],
)
def test_what_cannot_work_is_refused(changes, said):
    with pytest.raises(ValueError) as caught:
        changed(standard, **changes)
    assert str(caught.value) == said


# ---- methods -------------------------------------------------------------------------------------


def test_another_method_keeps_guidance_scale_and_weighting():
    recipe = changed(Recipe(), guidance_scale=3.0, weighting="one-step")
    found = with_method(recipe, "vsd", lora_rank=2)
    assert found.method == VSD(guidance_scale=3.0, weighting="one-step", lora_rank=2)
    assert dataclasses.replace(found, method=Recipe().method) == Recipe()
    assert with_method(Recipe(), "sds", guidance_scale=100.0).method == SDS(guidance_scale=100.0)


def test_the_same_method_keeps_all_its_numbers():
    assert with_method(standard, "dsd") == standard
    assert with_method(standard, "dsd", eta=0.5) == changed(standard, eta=0.5)


def test_a_method_or_number_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="--method 'dds' is not one of asd, cfd, csd, dsd, "):
        with_method(standard, "dds")
    with pytest.raises(ValueError, match=r"method SDS has a number method\.eta$"):
        with_method(standard, "sds", eta=0.5)


def test_what_a_method_is_called():
    assert {method_name(kind()) for kind in METHODS.values()} == METHODS.keys()
    assert method_name(Mine()) == "Mine"


# ---- phases --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "late"),
    [
        ({"late_resolution": 128}, {"render.resolution": 128}),
        ({"late_image_space": 1.0}, {"image_space": 1.0}),
        ({"late_samples": 96}, {"render.samples": 96}),
        ({"image_space": 0.5, "late_image_space": 0.0}, {"image_space": 0.0}),
    ],
)
def test_two_phases_where_something_changes(changes, late):
    """Also where a field has numbers of these names."""
    for base in (standard, OWN):
        recipe = changed(base, steps=10, late_from=0.6, late_resolution=96)
        recipe = changed(recipe, **{"render.resolution": 96} | changes)
        (first_end, first), (end, second) = phases(recipe)
        assert (first_end, end) == (6, 10)
        assert first == recipe
        assert second == changed(recipe, **late)


def test_unset_late_numbers_keep_the_early_ones():
    assert len(phases(changed(standard, image_space=0.5, samples=7))) == 1


# ---- what follows --------------------------------------------------------------------------------


def test_the_noise_of_a_view_is_the_method_s_unless_it_is_said():
    own = {name: with_method(standard, name).view_noise for name in METHODS}
    assert own.pop("cfd") == "attached" and set(own.values()) == {"shared"}
    assert changed(standard, view_noise="own").view_noise == "own"
    assert dataclasses.replace(standard, method=CFD()).view_noise == CFD.view_noise


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({}, True),
        ({"kind": "nodes"}, True),
        ({"kind": "exact"}, False),
        ({"view_noise": "attached"}, False),  # a noise that moves is followed at every step
        ({"method": SDS()}, False),
        ({"method": NFSD()}, False),
        ({"method": DSD()}, True),
    ],
    ids=str,
)
def test_whether_the_ode_is_kept(changes, keeps):
    method = changes.get("method", standard.method)
    values = {name: value for name, value in changes.items() if name != "method"}
    assert changed(dataclasses.replace(standard, method=method), **values).keeps_ode == keeps


def test_a_random_background_is_shown_as_grey():
    for background in ("grey", "white", "colour", "directional"):
        assert changed(quick, background=background).scene.background == background
    assert changed(quick, background="random").scene.background == "grey"
    assert changed(quick, rounds=0).scene.field == quick.field


def test_a_recipe_is_hashable():
    assert changed(standard, steps=300) == standard and hash(Recipe()) == hash(Recipe())
    assert len({*map(hash, PRESETS.values())}) == len(PRESETS)
