"""Each part refuses what cannot work, and names the flag."""

import dataclasses
from typing import Any

import pytest

from dsd_jax.recipe.recipe import Recipe, changed, numbers

COUNTS = (
    "ode.azimuth-bins", "ode.elevation-bins", "camera.views", "render.resolution",
    "render.late-resolution", "render.samples", "render.late-samples",
    "render.occupancy-resolution", "render.occupancy-every", "results.final-samples",
    "results.turntable-frames", "results.turntable-resolution", "results.preview-resolution",
    "refine.fit-steps", "refine.groups", "refine.group-views", "refine.target-samples",
    "refine.rays", "refine.fit-samples", "refine.refresh-every",
)  # fmt: skip
FRACTIONS = (
    "render.shading-from", "render.shading-probability", "render.textureless-probability",
    "regularise.early-until", "reference.visible-eta", "optimise.t-min", "optimise.t-max",
    "optimise.image-space", "optimise.late-image-space", "optimise.late-from", "refine.t-first",
    "refine.t-last", "refine.fresh", "refine.fresh-at", "refine.target-rescale",
    "refine.picture-share",
)  # fmt: skip
WORDS = (
    "ode.kind", "condition.view-prompts", "camera.view-noise", "render.background",
    "optimise.annealing", "refine.noise",
)  # fmt: skip


def refused(changes: dict[str, Any]) -> str:
    """What is said of these numbers."""
    with pytest.raises(ValueError) as caught:
        changed(Recipe(), **changes)
    return str(caught.value)


@pytest.mark.parametrize("flag", COUNTS)
def test_counts_are_at_least_one(flag):
    name = flag.replace("-", "_")
    assert refused({name: 0}) == f"--{flag} must be at least 1, not 0"
    assert changed(Recipe(), **{name: 1})


@pytest.mark.parametrize("flag", FRACTIONS)
def test_fractions_lie_between_nothing_and_all(flag):
    name = flag.replace("-", "_")
    for value in (-0.1, 1.5, float("nan")):
        assert refused({name: value}) == f"--{flag} must lie in 0..1, not {value}"
    assert changed(Recipe(), **{name: 0.5})


@pytest.mark.parametrize("flag", WORDS)
def test_words_are_those_that_are_known(flag):
    said = refused({flag.replace("-", "_"): "tabel"})
    assert said.startswith(f"--{flag} 'tabel' is not one of ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"table_points": 2}, "--ode.table-points must be at least 3, not 2"),
        ({"elevation_min_deg": 50}, "--camera.elevation-min-deg and --camera.elevation-max-deg "
         "must ascend inside -90..90, not 50 and 45.0"),
        ({"elevation_max_deg": 90}, "--camera.elevation-min-deg and --camera.elevation-max-deg "
         "must ascend inside -90..90, not -10.0 and 90"),
        ({"distance": 1.0}, "--camera.distance must exceed the object's radius 1, not 1.0"),
        ({"fov_deg": 180}, "--camera.fov-deg must lie inside 0..180, not 180"),
        ({"t_min": 0.9, "t_max": 0.5},
         "--optimise.t-min must be below --optimise.t-max, not 0.9 and 0.5"),
        ({"rounds": -1}, "--refine.rounds must be at least 0, not -1"),
        ({"ddim_steps": 1}, "--refine.ddim-steps must be at least 2, not 1"),
        ({"t_last": 0.9}, "--refine.t-last must lie above 0 and not above --refine.t-first, "
         "not 0.9 and 0.8"),
        ({"turntable_seconds": 0.0}, "--results.turntable-seconds must be positive, not 0.0"),
        ({"turntable_seconds": 1e-9},
         "--results.turntable-seconds must be at least 0.01, not 1e-09"),
        ({"preview_seconds": -1.0}, "--results.preview-seconds must be at least 0, not -1.0"),
        ({"fit_steps": 10**11}, "--refine.fit-steps must be at most 1000000, not 100000000000"),
        ({"fit_opaque": -1.0}, "--refine.fit-opaque must be at least 0, not -1.0"),
        ({"curvature": -1.0}, "--surface.curvature must be at least 0, not -1.0"),
        ({"regularise.opaque": -1.0}, "--regularise.opaque must be at least 0, not -1.0"),
        ({"reference.colour": -1.0}, "--reference.colour must be at least 0, not -1.0"),
        ({"beta1": 1.0}, "--optimise.beta1 must be below 1, not 1.0"),
        ({"beta2": -0.1}, "--optimise.beta2 must be at least 0, not -0.1"),
        ({"adam_eps": 0.0}, "--optimise.adam-eps must be positive, not 0.0"),
        ({"grid_rate": float("nan")}, "--optimise.grid-rate must be at least 0, not nan"),
        ({"grid_rate": float("inf")}, "--optimise.grid-rate must be a finite number "
         "(below 3.4e38), not inf"),
        ({"guidance_scale": float("inf")}, "--method.guidance-scale must be a finite number "
         "(below 3.4e38), not inf"),
        ({"guidance_scale": 1e300}, "--method.guidance-scale must be a finite number "
         "(below 3.4e38), not 1e+300"),
        ({"blob_scale": float("nan")}, "--field.blob-scale must be a finite number "
         "(below 3.4e38), not nan"),
    ],
    ids=str,
)  # fmt: skip
def test_what_else_cannot_work(changes, said):
    assert refused(changes) == said


def test_every_part_is_frozen_and_hashable():
    names = {part for part, _, _ in numbers(Recipe()) if part}
    assert len(names) >= 9
    for kind in {type(getattr(Recipe(), name)) for name in names}:
        assert kind() == kind() and hash(kind()) == hash(kind())
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(kind(), dataclasses.fields(kind)[0].name, 1)
