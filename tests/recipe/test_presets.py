"""Settings, presets and phases."""

import dataclasses

import pytest

from dsd_jax.distillation import METHODS
from dsd_jax.recipe.checks import check
from dsd_jax.recipe.presets import PRESETS, Settings, phases, resolved


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_pass_their_own_check_and_compile_one_program(preset):
    check(PRESETS[preset])
    assert phases(PRESETS[preset]) == [(PRESETS[preset].steps, PRESETS[preset])]


@pytest.mark.parametrize(
    ("changes", "late"),
    [
        ({"late_resolution": 128}, {"resolution": 128}),
        ({"late_image_space": 1.0}, {"image_space": 1.0}),
        ({"late_samples": 96}, {"samples": 96}),
        ({"image_space": 0.5, "late_image_space": 0.0}, {"image_space": 0.0}),
    ],
)
def test_two_phases_where_something_changes(changes, late):
    settings = Settings(steps=10, late_from=0.6, resolution=96, late_resolution=96)
    settings = dataclasses.replace(settings, **changes)
    (first_end, first), (end, second) = phases(settings)
    assert (first_end, end) == (6, 10)
    assert first == settings
    assert second == dataclasses.replace(settings, **late)


def test_unset_late_share_keeps_the_early_one():
    assert len(phases(Settings(image_space=0.5))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eta": 1.5}, "--eta must lie in 0..1"),
        ({"image_space": -0.1}, "--image-space must lie in 0..1"),
        ({"late_image_space": 2.0}, "--late-image-space must lie in 0..1"),
        ({"t_min": 0.9, "t_max": 0.5}, "--t-min must be below --t-max"),
        ({"steps": 0}, "--steps must be at least 1"),
        ({"late_samples": 0}, "--late-samples must be at least 1, not 0"),
        ({"t_prime_offset": -0.1}, "--t-prime-offset must lie in 0..1"),
        ({"density_floor": -1.0}, "--density-floor must not be negative"),
        ({"ode_table_points": 2}, "--ode-table-points must be at least 3, not 2"),
        ({"fresh_share": 1.5}, "--fresh-share must lie in 0..1, not 1.5"),
        ({"lora_rank": 0}, "--lora-rank must be at least 1, not 0"),
        ({"lora_rate": 0.0}, "--lora-rate must be positive, not 0.0"),
        ({"asd_gamma": -1.5}, "--asd-gamma must be at least -1, not -1.5"),
        ({"ode_elevation_bins": 0}, "--ode-elevation-bins must be at least 1, not 0"),
    ],
)
def test_refused_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        check(dataclasses.replace(Settings(), **changes))


def test_the_noise_of_a_view_is_the_methods_unless_it_is_said():
    own = {name: resolved(Settings(), method).view_noise for name, method in METHODS.items()}
    assert own.pop("cfd") == "attached" and set(own.values()) == {"shared"}
    said = Settings(view_noise="own")
    assert resolved(said, METHODS["cfd"]) == said
