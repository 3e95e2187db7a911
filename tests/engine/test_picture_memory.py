"""Sizes that no memory holds are refused in one line, before anything is compiled."""

import re

import pytest

from dsd_jax.distillation import METHODS
from dsd_jax.engine import host_memory, memory
from dsd_jax.engine.picture_memory import refuse_too_large
from dsd_jax.engine.plan import all_at_once, make_plan
from dsd_jax.priors import load_prior
from dsd_jax.recipe.recipe import changed, numbers, with_method

# What takes time alone, and what is a number of timesteps.
HARMLESS = {"steps", "start_levels", "occupancy_every", "fit_steps", "refresh_every",
            "settle_steps", "interval", "inversion_steps", "t_prime_min",
            "t_prime_min_late"}  # fmt: skip


@pytest.fixture(scope="module")
def refined(task):
    return task._replace(recipe=changed(task.recipe, rounds=1))


def refusal(task, name: str, value: int) -> str:
    """What is said of a recipe with this number."""
    with pytest.raises(ValueError) as error:
        make_plan(task._replace(recipe=changed(task.recipe, **{name: value})), range(4))
    (line,) = str(error.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("render.resolution", r"one seed needs about [\d.]+ GB .* make --resolution, "),
        ("results.turntable_resolution", "make --turntable-resolution or --final-samples smaller"),
        ("results.final_samples", "make --turntable-resolution or --final-samples smaller"),
        ("results.turntable_frames", r"4 seeds need .* \(turntables .* make --turntable-frames"),
        ("results.preview_resolution", "make --preview-resolution or --samples smaller"),
        ("refine.target_samples", "make --target-resolution or --target-samples smaller"),
        ("refine.groups", "--refine.groups must be at most 1000, not 100000000"),
    ],
)
def test_a_size_without_bounds_is_refused_by_name(refined, compilations, name, said):
    line = refusal(refined, name, 10**8)
    assert re.search(said, line), line
    assert {*compilations} <= {"jit(convert_element_type)"}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_whole_number_of_a_recipe_has_a_bound(refined, tiny_prior_folder, method):
    prior = load_prior(tiny_prior_folder)
    base = with_method(refined.recipe, method)
    task = refined._replace(prior=prior, condition=prior.condition("a red house"))
    for part, name, value in numbers(base):
        optional = name in ("late_samples", "target_resolution", "table_points")
        whole = isinstance(value, int) and not isinstance(value, bool)
        if part and (whole or optional) and name not in HARMLESS:
            refusal(task._replace(recipe=base), f"{part}.{name}", 10**9)


def test_usual_sizes_fit_and_too_many_seeds_do_not(task, monkeypatch):
    usual = task.recipe.results
    refuse_too_large(task.recipe, 10**6, 64, 64)
    turns = 64 * 3 * usual.turntable_frames * usual.turntable_resolution**2
    monkeypatch.setattr(host_memory, "resident", lambda: 0)
    monkeypatch.setattr(host_memory, "free", lambda: turns)
    monkeypatch.setattr(memory, "bytes_available", lambda: turns)
    with pytest.raises(ValueError, match=r"results of 64 seeds need .* name fewer --seeds"):
        refuse_too_large(task.recipe, 10**6, 64, 64)
    refuse_too_large(task.recipe, 10**6, 32, 32)


def test_seeds_at_once_have_to_fit(task, monkeypatch):
    needs = memory.needs(task.prior, task.recipe, task.condition)
    limit = memory.program(task.recipe) + 100 * needs.per_seed
    monkeypatch.setattr(memory, "bytes_available", lambda: limit)
    assert all_at_once(task, range(100)).bytes_needed > 0
    seeds = range(2 * limit // needs.per_seed)
    with pytest.raises(ValueError, match=f"^{len(seeds)} seeds at once need .* fewer --seeds"):
        all_at_once(task, seeds)
